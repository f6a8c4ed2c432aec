"""Both wires, as stock clients speak them: gRPC as flwr 1.33 does, HTTP as flwr 1.42 does."""

from __future__ import annotations

import base64
import json
import ssl
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol, cast

import grpc
import grpc.aio
import httpx

from flower_nats.model.errors import Outcome
from flower_nats.wire.methods import Method

WireName = Literal["grpc", "http"]

Metadata = Sequence[tuple[str, str | bytes]]

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Without this option, all clients of a process would share one TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
]

_HTTP_SECONDS = 30.0
"""Limit of a connect, and of each read and write (flwr 1.42 `supercore/protobuf/client.py`)."""

_PROTOBUF = "application/protobuf"
_PROTOBUF_STREAM = "application/flower-protobuf-stream"
_FRAME = struct.Struct(">I")

_LOST = (
    httpx.ConnectError,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
    httpx.TimeoutException,
)
"""Errors of a call whose server cannot be reached (flwr 1.42 `supercore/retry/http_retry.py`)."""

_SSL_WORDS = ("certificate", "ssl", "tls")
"""A stock client gives up if such an error has one of these words in its text (the same file)."""


class Refused(Exception):
    """A call was answered with a refusal, or its server could not be reached."""

    def __init__(self, method: str, outcome: Outcome | None, code: int | None, text: str) -> None:
        super().__init__(f"{method}: {outcome} {code} {text}")
        self.outcome = outcome
        """None for a status that this runtime does not use."""
        self.code = code
        """Flower's error code, if the refusal has one."""
        self.text = text
        """The text for people."""


class Channel(Protocol):
    """A client's way to an API."""

    async def unary(
        self, method: Method, body: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> bytes:
        """Make a call.

        Raises `Refused`, or TimeoutError if no answer comes within the caller's own `timeout`.
        """

    def stream(
        self, method: Method, body: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Make a call that is answered by a stream. Raises as `unary`."""

    async def close(self) -> None:
        """Close the channel."""


class GrpcChannel:
    """One API over gRPC."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)

    async def ready(self) -> None:
        """Wait until the channel is connected."""
        await self._channel.channel_ready()

    async def unary(
        self, method: Method, body: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> bytes:
        call: Any = self._channel.unary_unary(method.path)
        try:
            return cast(bytes, await call(body, metadata=tuple(metadata), timeout=timeout))
        except grpc.aio.AioRpcError as exc:
            raise _grpc_refusal(method, exc, timeout) from exc

    async def stream(
        self, method: Method, body: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        call: Any = self._channel.unary_stream(method.path)
        answers = call(body, metadata=tuple(metadata), timeout=timeout)
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as exc:
            raise _grpc_refusal(method, exc, None) from exc
        finally:
            answers.cancel()

    async def close(self) -> None:
        await self._channel.close()


def _grpc_refusal(method: Method, exc: grpc.aio.AioRpcError, timeout: float | None) -> Exception:
    name, details = exc.code().name, exc.details() or ""
    if name == "DEADLINE_EXCEEDED" and timeout is not None:
        return TimeoutError(method.name)
    outcome = Outcome[name] if name in Outcome.__members__ else None
    said = _json(details)
    if not said:
        return Refused(method.name, outcome, None, details)
    text = _joined(said.get("public_message"), said.get("public_details"))
    return Refused(method.name, outcome, said.get("code"), text)


class HttpChannel:
    """All APIs over HTTP, for one client, which keeps idle connections for 5 s."""

    def __init__(self, address: str, verify: ssl.SSLContext | None = None) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"{'http' if verify is None else 'https'}://{address}",
            verify=verify or False,
            timeout=_HTTP_SECONDS,
            follow_redirects=True,
            trust_env=False,
        )

    async def unary(
        self, method: Method, body: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> bytes:
        request = self._request(method, body, metadata, _PROTOBUF)
        if timeout is not None:
            request.extensions["timeout"] = httpx.Timeout(timeout).as_dict()
        try:
            response = await self._client.send(request)
        except httpx.TimeoutException as exc:
            raise _lost(method, exc) if timeout is None else TimeoutError(method.name) from exc
        except httpx.TransportError as exc:
            raise _lost(method, exc) from exc
        if not response.is_success:
            raise _http_refusal(method, response)
        return response.content

    async def stream(
        self, method: Method, body: bytes, metadata: Metadata = (), timeout: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Make a call that is answered by a stream, for which stock has no time limit."""
        request = self._request(method, body, metadata, _PROTOBUF_STREAM)
        request.headers["accept-encoding"] = "identity"
        async with self._streamed(method, request) as response:
            buffer = b""
            async for piece in response.aiter_bytes():
                buffer += piece
                while (frame := _first_frame(buffer)) is not None:
                    buffer = buffer[_FRAME.size + len(frame) :]
                    yield frame
            if buffer:
                raise Refused(method.name, None, None, "half a frame")

    @asynccontextmanager
    async def _streamed(
        self, method: Method, request: httpx.Request
    ) -> AsyncGenerator[httpx.Response, None]:
        limits = request.extensions["timeout"]
        try:
            response = await self._client.send(request, stream=True)
            limits["read"] = None
            try:
                if not response.is_success:
                    await response.aread()
                    raise _http_refusal(method, response)
                yield response
            finally:
                await response.aclose()
        except httpx.TransportError as exc:
            raise _lost(method, exc) from exc

    def _request(
        self, method: Method, body: bytes, metadata: Metadata, accept: str
    ) -> httpx.Request:
        headers = {"content-type": _PROTOBUF, "accept": accept, **_headers(metadata)}
        return self._client.build_request("POST", method.http_path, content=body, headers=headers)

    async def close(self) -> None:
        await self._client.aclose()


CHANNELS: Mapping[WireName, type[GrpcChannel] | type[HttpChannel]] = {
    "grpc": GrpcChannel,
    "http": HttpChannel,
}


def _headers(metadata: Metadata) -> dict[str, str]:
    """Return gRPC metadata as headers: bytes are sent in base64, under a name without `-bin`."""
    return {
        key.removesuffix("-bin"): value
        if isinstance(value, str)
        else base64.b64encode(value).decode()
        for key, value in metadata
    }


def _first_frame(buffer: bytes) -> bytes | None:
    if len(buffer) < _FRAME.size:
        return None
    (size,) = _FRAME.unpack_from(buffer)
    end = _FRAME.size + size
    return buffer[_FRAME.size : end] if len(buffer) >= end else None


def _lost(method: Method, exc: httpx.TransportError) -> Refused:
    text = repr(exc)
    is_fatal = not isinstance(exc, _LOST) or any(word in text.lower() for word in _SSL_WORDS)
    return Refused(method.name, None if is_fatal else Outcome.UNAVAILABLE, None, text)


def _http_refusal(method: Method, response: httpx.Response) -> Refused:
    number = response.status_code
    outcome = Outcome(number) if number in {one.value for one in Outcome} else None
    said = _json(response.text) or {"detail": response.text}
    text = _joined(said.get("detail"), said.get("extra"))
    text = text if outcome else f"HTTP {number}: {text}"
    return Refused(method.name, outcome, said.get("code"), text)


def _json(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _joined(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)
