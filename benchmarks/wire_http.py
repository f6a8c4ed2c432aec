"""A node's calls over HTTP, with the headers that flwr 1.42 sends through httpx."""

from __future__ import annotations

import ssl
from base64 import b64encode

from google.protobuf.message import Message as ProtoMessage

from benchmarks.fleet import Late, Proof, Refused, Tally, Unavailable, Wire, version_headers
from benchmarks.http_client import Answer, HttpClient, TransportError
from flower_nats.wire.methods import FLEET, Method

_PATIENCE = 30.0
"""Seconds of silence after which httpx gives up a call."""

_RETRIED = frozenset((502, 503, 504))
_OK = 200

HEADERS = (
    ("accept", "application/protobuf"),
    ("accept-encoding", "gzip, deflate"),
    ("connection", "keep-alive"),
    ("user-agent", "python-httpx/0.28.1"),
    ("content-type", "application/protobuf"),
)
"""The headers of every call."""


class HttpWire(Wire):
    """A client of the Fleet API."""

    def __init__(
        self,
        address: str,
        version: str,
        public_key: bytes,
        tally: Tally,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._client = HttpClient(address, tls)
        self._tally = tally
        constant = (
            ("host", address),
            *HEADERS,
            *version_headers(version, "SuperNode"),
            ("flwr-public-key", b64encode(public_key).decode()),
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in constant)
        self._heads = {
            method.name: f"POST {method.http_path} HTTP/1.1\r\n{lines}" for method in FLEET
        }

    def head(self, method: Method, body: bytes, proof: Proof) -> bytes:
        """Return the head of a request."""
        return (
            f"{self._heads[method.name]}content-length: {len(body)}\r\n"
            f"flwr-timestamp: {proof.timestamp}\r\n"
            f"flwr-signature: {b64encode(proof.signature).decode()}\r\n\r\n"
        ).encode()

    async def send(
        self, method: Method, body: bytes, proof: Proof, timeout: float | None
    ) -> ProtoMessage:
        opened = self._client.opened
        try:
            answer = await self._client.post(
                self.head(method, body, proof), body, timeout or _PATIENCE
            )
        except TransportError as exc:
            raise (Late if timeout else Unavailable)(str(exc)) from exc
        finally:
            self._tally.connections += self._client.opened - opened
        return _read(method, answer)

    async def close(self) -> None:
        self._client.close()


def _read(method: Method, answer: Answer) -> ProtoMessage:
    if answer.status in _RETRIED:
        raise Unavailable(f"{answer.status} {_said(answer)}")
    if answer.status != _OK:
        raise Refused(f"{method.name}: {answer.status} {_said(answer)}")
    return method.response.FromString(answer.body)  # type: ignore[arg-type]


def _said(answer: Answer) -> str:
    """Return the beginning of an answer that refuses a call."""
    return bytes(answer.body[:200]).decode(errors="replace")
