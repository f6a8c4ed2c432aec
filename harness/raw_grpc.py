"""gRPC by hand, for bytes that no library would send."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Iterable
from types import TracebackType

from flower_nats.wire.methods import BY_NAME
from harness.channels import Metadata
from harness.frames import DATA, END_STREAM, HEADERS, PREFACE, Frame, Frames

_RST_STREAM, _SETTINGS, _WINDOW_UPDATE = 3, 4, 8
_WINDOW = 65_535
_LONGEST_FRAME = 16_384
_END_HEADERS = 4
_INITIAL_WINDOW_SIZE = 4
_CANCEL = 8


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return one HTTP/2 frame."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + body


def head_of(stream: int, api: str, method: str, metadata: Metadata = ()) -> bytes:
    """Return the head of a call."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", BY_NAME[(api, method)].path),
        (":authority", "gateway"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *metadata,
    ]
    return frame(HEADERS, _END_HEADERS, stream, b"".join(map(_field, *zip(*fields, strict=True))))


def prefix(size: int) -> bytes:
    """Return the prefix of a message of this size in the body of a call."""
    return struct.pack(">BI", 0, size)


def message(stream: int, body: bytes) -> bytes:
    """Return the frame of a short message, which ends the call's body."""
    return frame(DATA, END_STREAM, stream, prefix(len(body)) + body)


def reset(stream: int) -> bytes:
    """Return the frame with which a client cancels a call."""
    return frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))


def _field(name: str, value: str | bytes) -> bytes:
    """Return a header in HPACK: a literal that is not indexed (RFC 7541, 6.2.2)."""
    text = base64.b64encode(value) if isinstance(value, bytes) else value.encode()
    return b"\x00" + _text(name.encode()) + _text(text)


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, length = len(text) - 127, [127]
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + text


class Connection:
    """A client's connection, on which it may send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = Frames().of(reader)
        self._windows = {0: _WINDOW}

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    async def send_data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send bytes of a call's body, as fast as the server permits; `prefix` begins a message."""
        self._windows.setdefault(stream, _WINDOW)
        while data:
            window = min(self._windows[0], self._windows[stream], _LONGEST_FRAME)
            if window <= 0:
                self._note(await anext(self._frames))
                continue
            piece, data = data[:window], data[window:]
            for number in (0, stream):
                self._windows[number] -= len(piece)
            await self.send(frame(DATA, END_STREAM if end and not data else 0, stream, piece))

    def _note(self, one: Frame) -> None:
        if one.kind == _WINDOW_UPDATE and one.stream in self._windows:
            self._windows[one.stream] += int.from_bytes(one.data[-4:], "big")

    async def send(self, *parts: bytes) -> None:
        """Send bytes, and wait until the system has taken them."""
        self.writer.write(b"".join(parts))
        await self.writer.drain()


async def connect(address: str, *, window: int = _WINDOW) -> Connection:
    """Connect to `host:port`; the server may send `window` bytes of each answer."""
    host, _, port = address.rpartition(":")
    connection = Connection(*await asyncio.open_connection(host, int(port)))
    setting = struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)
    await connection.send(PREFACE, frame(_SETTINGS, 0, 0, setting))
    return connection


def stream_ids() -> Iterable[int]:
    """Return the numbers of a client's streams, in order."""
    return range(1, 2**31, 2)
