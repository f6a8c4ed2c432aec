"""Connections of gRPC clients to the HTTP port, which are forwarded to our gRPC server."""

import asyncio
from collections.abc import Callable
from typing import cast

from flower_nats_gateway.calls.peers import Origins

_WAITING = 1024 * 1024
"""The most bytes of a client that wait for the connection to our server. Then reading stops."""


class Passages:
    """All such connections of one listener."""

    def __init__(self, grpc_port: int | None, origins: Origins) -> None:
        """`origins` gets the client behind each connection to our server."""
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
    """One of the two ends, which forwards its data to the other."""

    def __init__(self, all_open: "set[_End]") -> None:
        self._all_open = all_open
        self._transport: asyncio.Transport | None = None
        self._other: _End | None = None
        self._unsent = bytearray()
        self._is_closed = False
        self.own_port = 0
        """Our port of this connection."""
        self.peer = ""
        """The peer of this connection."""
        self.on_end: Callable[[int], None] = lambda _port: None
        """Called with `own_port` after the end."""

    def join(self, other: "_End") -> None:
        """Set the other end, and forward the data that has already come."""
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
        """Disconnect, once all data is sent."""
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
        """Forward incoming data."""
        if self._other is not None:
            self._other.send(data)
            return
        self._unsent += data
        if len(self._unsent) > _WAITING and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Pause the other end, because this one cannot take more."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume the other end."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Disconnect the other end, too."""
        self._is_closed = True
        self._all_open.discard(self)
        self.on_end(self.own_port)
        if self._other is not None:
            self._other.close()
