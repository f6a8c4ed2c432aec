"""One RPC as the gateway sees it, whatever transport it came over."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire.methods import Method

_M = TypeVar("_M", bound=ProtoMessage)


@dataclass(frozen=True)
class Call:
    """A request, before anybody has looked at it."""

    method: Method
    body: bytes
    """The request message as it came."""
    metadata: Mapping[str, str | bytes]
    """Keys in lower case; values of keys that end in `-bin` are bytes."""

    def text(self, key: str) -> str:
        """Return a metadata value as text, empty if it is absent."""
        value = self.metadata.get(key, "")
        return value.decode("latin-1") if isinstance(value, bytes) else value

    def binary(self, key: str) -> bytes:
        """Return a metadata value as bytes, empty if it is absent."""
        value = self.metadata.get(key, b"")
        return value if isinstance(value, bytes) else value.encode()

    def parse(self, kind: type[_M]) -> _M:
        """Return the request message. Raises `ApiError` (MALFORMED_REQUEST)."""
        try:
            return kind.FromString(self.body)
        except DecodeError as exc:
            reason = f"the body of {self.method.name} is not a {kind.DESCRIPTOR.name}"
            raise ApiError(ErrorCode.MALFORMED_REQUEST, reason, public_details=reason) from exc


Endpoint = Callable[[Call, Caller], Awaitable[bytes]]
"""Serves one unary RPC of an authenticated caller; gives the serialized response."""


class Drain:
    """Tells every held call when the gateway is about to leave."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether held calls should end."""
        return self._event.is_set()

    def begin(self) -> None:
        """Ask held calls to end."""
        self._event.set()
