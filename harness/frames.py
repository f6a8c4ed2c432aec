"""A client's connection, cut into frames: those of HTTP/2, or similar pieces of HTTP/1.1."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client on an HTTP/2 connection (RFC 9113)."""

DATA, HEADERS = 0, 1
END_STREAM = 1
_FRAME_HEAD = 9
_LONGEST_PIECE = 16 * 1024
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_calls = itertools.count(1)


@dataclass(frozen=True)
class Frame:
    """One HTTP/2 frame, as it travels."""

    data: bytes
    kind: int
    flags: int
    stream: int

    @property
    def is_last(self) -> bool:
        """Whether the sender ends the stream with this frame."""
        return bool(self.flags & END_STREAM)


class Frames:
    """Splits a byte stream into HTTP/2 frames."""

    def __init__(self, preface: bytes = b"") -> None:
        self._buffer = b""
        self._preface = len(preface)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each whole frame; the preface is a frame of kind -1."""
        self._buffer += data
        if self._preface:
            if len(self._buffer) < self._preface:
                return
            yield Frame(self._buffer[: self._preface], -1, 0, 0)
            self._buffer, self._preface = self._buffer[self._preface :], 0
        while len(self._buffer) >= _FRAME_HEAD:
            whole = _FRAME_HEAD + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < whole:
                return
            frame, self._buffer = self._buffer[:whole], self._buffer[whole:]
            stream = int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF
            yield Frame(frame, frame[3], frame[4], stream)

    async def of(self, reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
        """Yield the frames of a connection until it ends."""
        while data := await reader.read(65536):
            for frame in self.feed(data):
                yield frame


class Splitter(Protocol):
    """Splits one direction of a connection."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each whole frame."""


class Http1Requests:
    """Splits the bytes of an HTTP/1.1 client: each request is a stream with a number of its own."""

    def __init__(self) -> None:
        self.call = 0
        """The number of the last request."""
        self._buffer = b""
        self._body_left = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each head as a whole, and each body in pieces."""
        self._buffer += data
        while self._buffer:
            if self._body_left:
                yield self._piece_of_body()
                continue
            head, end, rest = self._buffer.partition(_END_OF_HEAD)
            if not end:
                return
            self._buffer = rest
            self.call = next(_calls)
            length = _LENGTH.search(head)
            self._body_left = int(length[1]) if length else 0
            yield self._frame(head + end, HEADERS)

    def _piece_of_body(self) -> Frame:
        size = min(self._body_left, _LONGEST_PIECE)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        self._body_left -= len(piece)
        return self._frame(piece, DATA)

    def _frame(self, data: bytes, kind: int) -> Frame:
        return Frame(data, kind, 0 if self._body_left else END_STREAM, self.call)


class Http1Answers:
    """Treats all bytes of an HTTP/1.1 server as a part of its answer to the last request."""

    def __init__(self, requests: Http1Requests) -> None:
        self._requests = requests

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the bytes as one frame."""
        yield Frame(data, HEADERS, 0, self._requests.call)
