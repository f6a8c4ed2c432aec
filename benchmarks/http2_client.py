"""gRPC calls over HTTP/2 by hand, for less CPU than gRPC for Python takes.

Thousands of nodes connect in the same second. With a gRPC channel for each node, the clients would
need many seconds of CPU, and the server would see no burst. For the server, a connection looks the
same: the client sends its settings, waits for the server's settings, makes each call in a stream of
its own, and answers pings. Requests are short: each is one frame of header fields and one of data.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from harness.frames import DATA, END_STREAM, HEADERS, PREFACE, Frame, Frames

OK, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 4, 14
"""The gRPC codes that a stock node treats in a way of their own."""

_RST_STREAM, _SETTINGS, _PING, _GOAWAY = 3, 4, 6, 7
_ACK = 1
_END_HEADERS = 4
_FRAME_HEAD = 9
_LONGEST_FRAME = 16 * 1024
_CANCEL = (8).to_bytes(4, "big")
_LAST_OF_STATIC_TABLE = 61

_GREETING_SETTINGS = (1).to_bytes(2, "big") + bytes(4)
"""SETTINGS_HEADER_TABLE_SIZE 0: every answer writes its fields in full."""

_UNKNOWN, _RESOURCE_EXHAUSTED, _INTERNAL, _CANCELLED = 2, 8, 13, 1
_CODES_OF_RESETS = {7: UNAVAILABLE, 8: _CANCELLED, 11: _RESOURCE_EXHAUSTED}
"""gRPC codes by a stream's reset: REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM."""


class ConnectionBroken(Exception):
    """The connection could not be made, or is gone."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its gRPC code, the code's message, and the answer if there is one."""

    code: int
    details: str = ""
    message: bytes = b""


@dataclass
class _Call:
    """A call that is under way."""

    outcome: asyncio.Future[Outcome]
    data: bytearray = field(default_factory=bytearray)

    def end(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Http2Connection(asyncio.Protocol):
    """One connection with the calls on it."""

    def __init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the server has sent its settings, before which gRPC makes no call."""

        self.takes_calls = True
        self._frames = Frames()
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._transport: asyncio.Transport | None = None

    async def call(self, fields: bytes, message: bytes) -> Outcome:
        """Make a call with encoded header fields and return how it ended.

        Raises:
            ConnectionBroken
        """
        data = b"\0" + len(message).to_bytes(4, "big") + message
        if max(len(fields), len(data)) > _LONGEST_FRAME:
            raise ValueError("a call that does not fit into one frame")
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        call = _Call(asyncio.get_running_loop().create_future())
        self._calls[stream] = call
        self._write(
            _frame(HEADERS, _END_HEADERS, stream, fields) + _frame(DATA, END_STREAM, stream, data)
        )
        try:
            return await call.outcome
        finally:
            if self._calls.pop(stream, None) and not self._is_closed:
                self._write(_frame(_RST_STREAM, 0, stream, _CANCEL))

    def abort(self) -> None:
        """Close the connection at once."""
        self.takes_calls = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def _is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A transport of uvloop is not of this class.
        self._transport = cast(asyncio.Transport, transport)
        self._write(PREFACE + _frame(_SETTINGS, 0, 0, _GREETING_SETTINGS))

    def connection_lost(self, exc: Exception | None) -> None:
        self.takes_calls = False
        broken = ConnectionBroken(f"closed by the server: {exc}")
        calls, self._calls = self._calls, {}
        waiting: list[asyncio.Future[Any]] = [self.ready, *(one.outcome for one in calls.values())]
        for future in waiting:
            if not future.done():
                future.set_exception(broken)
        if not self.ready.cancelled():
            # Perhaps nothing awaits the future: asyncio would log its error.
            self.ready.exception()

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        payload = frame.data[_FRAME_HEAD:]
        if frame.kind == _SETTINGS and not frame.flags & _ACK:
            self._write(_frame(_SETTINGS, _ACK, 0, b""))
            if not self.ready.done():
                self.ready.set_result(None)
        elif frame.kind == _PING and not frame.flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif frame.kind == _GOAWAY:
            self._leave(int.from_bytes(payload[:4], "big"))
        elif call := self._calls.get(frame.stream):
            self._take_answer(frame, payload, call)

    def _take_answer(self, frame: Frame, payload: bytes, call: _Call) -> None:
        if frame.kind == DATA:
            call.data += payload
        elif frame.kind == HEADERS and frame.is_last:
            del self._calls[frame.stream]
            call.end(_outcome(payload, bytes(call.data[5:])))
        elif frame.kind == _RST_STREAM:
            del self._calls[frame.stream]
            reset = int.from_bytes(payload, "big")
            call.end(
                Outcome(_CODES_OF_RESETS.get(reset, _INTERNAL), f"the stream's reset, {reset}")
            )

    def _leave(self, last: int) -> None:
        """Make no more calls; end the calls after ``last``, which the server will not serve."""
        self.takes_calls = False
        for stream in [stream for stream in self._calls if stream > last]:
            self._calls.pop(stream).end(Outcome(UNAVAILABLE, "the server goes away"))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _outcome(block: bytes, message: bytes) -> Outcome:
    """Return the outcome of a call from the last header fields of its answer."""
    try:
        fields = decode_fields(block)
        return Outcome(int(fields["grpc-status"]), fields.get("grpc-message", ""), message)
    except (KeyError, ValueError) as exc:
        return Outcome(_UNKNOWN, f"no answer of a gRPC server: {exc!r}")


def encode_fields(fields: tuple[tuple[str, str], ...]) -> bytes:
    """Encode header fields in HPACK, each in full (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    data = text.encode()
    rest = len(data) - 0x7F
    if rest < 0:
        return bytes((len(data),)) + data
    length = bytearray((0x7F,))
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*length, rest)) + data


def decode_fields(block: bytes) -> dict[str, str]:
    """Read the header fields with their names in full; no other field matters to a call.

    Raises:
        ValueError: The server used a table for them, although it was asked not to.
    """
    fields: dict[str, str] = {}
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _number(block, at, 7)
            _check_static(index)
        elif first & 0xE0 == 0x20:
            _, at = _number(block, at, 5)
        else:
            index, at = _number(block, at, 6 if first & 0x40 else 4)
            _check_static(index)
            name = f"static {index}"
            if not index:
                name, at = _string(block, at)
            fields[name], at = _string(block, at)
    return fields


def _check_static(index: int) -> None:
    if index > _LAST_OF_STATIC_TABLE:
        raise ValueError("a field of a table that was not to be used")


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Read a number that has ``bits`` bits in its first byte; return it and its end."""
    full = (1 << bits) - 1
    number, at = block[at] & full, at + 1
    shift = 0
    more = number == full
    while more:
        number += (block[at] & 0x7F) << shift
        more = bool(block[at] & 0x80)
        at, shift = at + 1, shift + 7
    return number, at


def _string(block: bytes, at: int) -> tuple[str, int]:
    is_huffman = block[at] & 0x80
    length, at = _number(block, at, 7)
    # gRPC uses Huffman codes only for fields that do not matter here.
    text = "" if is_huffman else block[at : at + length].decode()
    return text, at + length
