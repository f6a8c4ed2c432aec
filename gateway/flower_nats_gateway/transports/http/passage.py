"""Connections of gRPC clients that came to the HTTP port: our gRPC server gets them, byte by byte."""

import asyncio
from collections.abc import Callable
from typing import cast

from flower_nats_gateway.calls.peers import Origins

_WAITING = 1024 * 1024
"""Bytes of a client that wait for the connection to our server, at most: reading stops meanwhile."""


class Passages:
    """All such connections of one listener."""

    def __init__(self, grpc_port: int | None, origins: Origins) -> None:
        """`origins` learns the client behind each connection to our server."""
        self._origins = origins
        self._grpc_port = grpc_port
        self._open: set[_End] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return (len(self._open) + 1) // 2

    def new(self) -> asyncio.Protocol:
        """Return the protocol of a connection that has just come."""
        outer = _End(self._open)
        task = asyncio.create_task(self._join(outer), name="grpc passage")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return outer

    def close(self) -> None:
        """End all of them."""
        for one in list(self._open):
            one.close()

    async def _join(self, outer: "_End") -> None:
        inner = _End(self._open)
        try:
            if self._grpc_port is None:
                raise ConnectionRefusedError("no gRPC is served here")
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: inner, "127.0.0.1", self._grpc_port)
        except OSError:
            outer.close()
        else:
            self._origins.note(inner.own_port, outer.peer)
            inner.on_end = self._origins.forget
            outer.join(inner)
            inner.join(outer)


class _End(asyncio.Protocol):
    """One of the two ends; what comes in at it goes out at the other."""

    def __init__(self, all_open: "set[_End]") -> None:
        self._all_open = all_open
        self._transport: asyncio.Transport | None = None
        self._other: _End | None = None
        self._unsent = bytearray()
        self._is_closed = False
        self.own_port = 0
        """The port at this side of it."""
        self.peer = ""
        """The other side of it."""
        self.on_end: Callable[[int], None] = lambda _port: None
        """Told `own_port` when it has ended."""

    def join(self, other: "_End") -> None:
        """Name the other end, and pass on what has come meanwhile."""
        self._other = other
        if self._is_closed:
            other.close()
        elif self._transport is not None:
            other.send(bytes(self._unsent))
            self._unsent.clear()
            self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Send to the peer at this end."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Hang up, once what was sent is out."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._all_open.add(self)
        self.own_port = transport.get_extra_info("sockname")[1]
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"{host}:{port}"

    def data_received(self, data: bytes) -> None:
        """Pass on what comes in."""
        if self._other is not None:
            self._other.send(data)
            return
        self._unsent += data
        if len(self._unsent) > _WAITING and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Let the other end wait: this one cannot take more."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other end go on."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hang up at the other end, too."""
        self._is_closed = True
        self._all_open.discard(self)
        self.on_end(self.own_port)
        if self._other is not None:
            self._other.close()
