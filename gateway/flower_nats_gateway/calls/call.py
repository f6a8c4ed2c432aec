"""One RPC as the gateway sees it, independent of the transport."""

import asyncio
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TypeVar, cast

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from flower_nats.broker.pushers import Pusher
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.visible import visible_name
from flower_nats.wire import common_pb2 as common
from flower_nats.wire.bulk import read_push_object
from flower_nats.wire.methods import Method
from flower_nats.wire.request_id import REQUEST_ID, is_request_id, new_request_id
from flower_nats_gateway.calls.peers import host_of
from flower_nats_gateway.calls.wire import Wire

_M = TypeVar("_M", bound=ProtoMessage)


_PASSED_ON = frozenset({"forwarded", "x-forwarded-for", "via"})
"""Headers that HTTP balancers add: one of them is enough."""

_LONGEST_TEXT = 64
"""Characters of a client's own description that are shown to people."""

# The headers by which stock clients describe themselves (flwr 1.42 `supercore/constant.py`).
CLIENT_VERSION = "flwr-package-version"
_CLIENT_NAME = "flwr-component-name"

_LARGE = 64 * 1024
"""Size in bytes from which a body is dropped after parsing, so that it is not held twice."""


class Call:
    """A request before authentication; at first without its body."""

    def __init__(
        self,
        method: Method,
        metadata: Mapping[str, str | bytes],
        peer: str,
        wire: Wire,
        signed_path: str,
        client_address: str,
    ) -> None:
        self.method = method
        self.began_at = time.monotonic()
        """A moment of our monotonic clock."""
        self.peer = peer
        """The other end of its connection: a client or a balancer."""
        self.client_address = client_address
        """The client's address. A balancer's statement about it counts if the balancer is
        trusted."""
        self.host = host_of(f"{client_address}:0")
        """The address that counts for limits; empty for this machine."""
        self.wire = wire
        """The facts of its wire."""
        self.signed_path = signed_path
        """The name of the method that a SuperExec signs."""
        self.pusher: Pusher = ""
        """The pusher if it is a PushObject, as soon as the metadata has shown it."""
        self.size = 0
        """Bytes of the request message as it came."""
        self.answer_metadata: tuple[tuple[str, str], ...] = ()
        """Metadata that a client over gRPC gets before the answer."""
        self._body: bytes | None = None
        self._metadata = metadata
        self._parsed: ProtoMessage | None = None
        self.content = memoryview(b"")
        """The object in the body of a PushObject, once parsed. The message does not contain it."""
        self.balanced = is_request_id(self.text(REQUEST_ID))
        """Whether it came by a balancer that repeats calls without an answer."""

    @property
    def client_connection(self) -> str | None:
        """The client's own connection while it lasts; None if unknown.

        It is unknown behind an HTTP balancer, and for clients that open new connections at any
        time.
        """
        return self.peer if self.is_direct and self.wire.keeps_connection else None

    @property
    def is_direct(self) -> bool:
        """Whether the client itself is at the other end, as far as is known."""
        return not (self.balanced or self.was_passed_on)

    @property
    def was_passed_on(self) -> bool:
        """Whether a balancer or proxy says that it has forwarded the call."""
        return not _PASSED_ON.isdisjoint(self._metadata)

    @property
    def client_version(self) -> str:
        """The version of flwr that the client reports, empty if it reports none."""
        return self.text(CLIENT_VERSION)

    @property
    def client_version_shown(self) -> str:
        """The same, for people to read."""
        return visible_name(self.client_version)[:_LONGEST_TEXT]

    @property
    def client_name(self) -> str:
        """The program that the client reports, such as `SuperExec`; empty if it reports none."""
        return self.text(_CLIENT_NAME)

    @property
    def client_name_shown(self) -> str:
        """The same, for people to read."""
        return visible_name(self.client_name)[:_LONGEST_TEXT]

    @cached_property
    def request_id(self) -> str:
        """Unique per call of a client, because a balancer may send one call to several gateways."""
        return self.text(REQUEST_ID) if self.balanced else new_request_id()

    def receive(self, body: bytes) -> None:
        """Set the body."""
        self._body = body
        self.size = len(body)

    @property
    def body(self) -> bytes:
        """The request message as it came, including unknown fields."""
        if self._body is None:
            assert self._parsed is not None, "the body is not there yet"
            return self._parsed.SerializeToString()
        return self._body

    def text(self, key: str) -> str:
        """Return a metadata value as text, empty if it is absent; keys are in lower case."""
        value = self._metadata.get(key, "")
        return value.decode("latin-1") if isinstance(value, bytes) else value

    def binary(self, key: str) -> bytes:
        """Return a metadata value as bytes (keys that end in `-bin`), empty if it is absent."""
        value = self._metadata.get(key, b"")
        return value if isinstance(value, bytes) else value.encode()

    def parse(self, kind: type[_M]) -> _M:
        """Return the request message, parsed once. Raises `ApiError` (INVALID_PROTOBUF_PAYLOAD)."""
        if self._parsed is None:
            try:
                self._parsed = self._read(kind)
            except DecodeError as exc:
                reason = f"the body of {self.method.name} is not a {kind.DESCRIPTOR.name}"
                raise ApiError(
                    ErrorCode.INVALID_PROTOBUF_PAYLOAD, reason, public_details=reason
                ) from exc
            if self.size > _LARGE:
                self._body = None
        return cast(_M, self._parsed)

    def _read(self, kind: type[ProtoMessage]) -> ProtoMessage:
        if kind is not common.PushObjectRequest:
            return kind.FromString(self.body)
        request, self.content = read_push_object(self.body)
        return request


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
