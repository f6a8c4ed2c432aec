"""A node's calls over gRPC, for less CPU: on a connection of its own, as in `wire_grpc`."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from functools import cache

from google.protobuf.message import Message as ProtoMessage

from benchmarks import http2_client
from benchmarks.fleet import Late, Proof, Refused, Tally, Unavailable, Wire, version_headers
from benchmarks.http2_client import ConnectionBroken, Http2Connection, encode_fields
from flower_nats.wire.methods import Method

_CONNECT_SECONDS = 20.0
"""How long gRPC tries to make a connection."""


class LightGrpcWire(Wire):
    """A client of the Fleet API, for calls that fit into one frame."""

    def __init__(self, address: str, version: str, public_key: bytes, tally: Tally) -> None:
        self._address = address
        self._tally = tally
        self._constant = encode_fields(
            (
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", "grpc-python"),
                *version_headers(version, "SuperNode"),
                ("flwr-public-key-bin", _base64(public_key)),
            )
        )
        self._connection: Http2Connection | None = None
        self._connecting = asyncio.Lock()

    async def send(
        self, method: Method, body: bytes, proof: Proof, timeout: float | None
    ) -> ProtoMessage:
        try:
            # Over gRPC, the time for a connection is part of the time for a call.
            async with asyncio.timeout(timeout):
                connection = await self._connected()
                outcome = await connection.call(self.fields(method, proof, timeout), body)
        except TimeoutError as exc:
            raise Late from exc
        except ConnectionBroken as exc:
            raise Unavailable(str(exc)) from exc
        if outcome.code == http2_client.OK:
            return method.response.FromString(outcome.message)
        if outcome.code == http2_client.UNAVAILABLE:
            raise Unavailable(f"UNAVAILABLE {outcome.details}")
        if outcome.code == http2_client.DEADLINE_EXCEEDED:
            raise Late
        raise Refused(f"{method.name}: code {outcome.code} {outcome.details}")

    def fields(self, method: Method, proof: Proof, timeout: float | None) -> bytes:
        """Return the header fields of a call."""
        own: tuple[tuple[str, str], ...] = (
            ("flwr-timestamp", proof.timestamp),
            ("flwr-signature-bin", _base64(proof.signature)),
        )
        if timeout is not None:
            own = (("grpc-timeout", f"{timeout * 1000:.0f}m"), *own)
        return _beginning(method.path, self._address) + self._constant + encode_fields(own)

    async def _connected(self) -> Http2Connection:
        """Return the connection; make a new one if it is gone."""
        async with self._connecting:
            if self._connection is None or not self._connection.takes_calls:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Http2Connection:
        self._tally.connections += 1
        host, _, port = self._address.rpartition(":")
        connection: Http2Connection | None = None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Http2Connection, host, int(port)
                )
                await connection.ready
        except BaseException as exc:
            if connection is not None:
                connection.abort()
            if isinstance(exc, OSError | TimeoutError):
                raise ConnectionBroken(f"no connection: {exc}") from exc
            raise
        return connection

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.abort()


@cache
def _beginning(path: str, address: str) -> bytes:
    """Return the first header fields of every call of a method."""
    return encode_fields(
        ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", address))
    )


def _base64(data: bytes) -> str:
    """Return bytes in the form that gRPC gives them in a ``-bin`` field."""
    return b64encode(data).decode().rstrip("=")
