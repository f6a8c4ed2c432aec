"""From bytes to handlers and back: handlers know messages and callers, but no transport."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, cast

import msgpack
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire.methods import BY_NAME

ProtoHandler = Callable[[Any, Caller], Awaitable[ProtoMessage]]
"""Takes the request message of its RPC and returns the response message."""

InternalHandler = Callable[[Mapping[str, Any], Caller], Awaitable[Mapping[str, Any]]]
"""Takes and returns a map of plain values, for calls between our own processes."""

BytesHandler = Callable[[bytes, Caller], Awaitable[bytes]]


def serve_protobuf(service: str, name: str, handler: ProtoHandler) -> BytesHandler:
    """Adapt the handler of a public RPC to bytes; refuses garbage (INVALID_PROTOBUF_PAYLOAD)."""
    method = BY_NAME[(service, name)]

    async def serve(body: bytes, caller: Caller) -> bytes:
        request = method.request()
        try:
            request.ParseFromString(body)
        except DecodeError as exc:
            raise ApiError(ErrorCode.INVALID_PROTOBUF_PAYLOAD, f"{service}.{name}: {exc}") from exc
        response = await handler(request, caller)
        return response.SerializeToString()

    return serve


def serve_internal(service: str, name: str, handler: InternalHandler) -> BytesHandler:
    """Adapt the handler of an RPC between our own processes to bytes."""

    async def serve(body: bytes, caller: Caller) -> bytes:
        try:
            question = msgpack.unpackb(body)
            if not isinstance(question, dict):
                raise TypeError("not a map")
            answer = await handler(question, caller)
        except (ValueError, KeyError, TypeError) as exc:
            raise ApiError(ErrorCode.MALFORMED_REQUEST, f"{service}.{name}: {exc!r}") from exc
        return cast(bytes, msgpack.packb(answer))

    return serve


def refuse(code: ErrorCode, public_details: str | None = None) -> ProtoHandler:
    """Return a handler that refuses every request with the same error."""

    async def handler(request: ProtoMessage, caller: Caller) -> NoReturn:
        raise ApiError(code, type(request).__name__, public_details)

    return handler
