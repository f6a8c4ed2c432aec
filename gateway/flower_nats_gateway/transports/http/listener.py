"""The port of all APIs: HTTP/1.1, and gRPC for clients that use this port.

The first bytes of a connection tell what its client speaks. HTTP is served here. gRPC begins with
the preface of HTTP/2, or over TLS with the protocol `h2`; this gateway passes it on to its gRPC server.
A client that speaks TLS to a port without it, or the reverse, is named in the log.
"""

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from flower_nats.settings import TlsFiles
from flower_nats.tls import renewable, server_context
from flower_nats_gateway.calls.balancers import Balancers
from flower_nats_gateway.calls.peers import Origins
from flower_nats_gateway.transports.address_limit import AddressLimit
from flower_nats_gateway.transports.http import errors
from flower_nats_gateway.transports.http.app import HttpApp
from flower_nats_gateway.transports.http.headers import version_in
from flower_nats_gateway.transports.http.passage import Passages
from flower_nats_gateway.transports.http.protocol import Connections
from flower_nats_gateway.transports.http.sockets import is_loopback, keep_alive, listen, reset
from flower_nats_gateway.transports.notices import notice

CONNECTIONS = 16_384
"""Connections at once."""

_AT_ONCE = 64
"""Connections that are accepted in one turn of the event loop."""

_FIRST_BYTES_SECONDS = 20.0
"""Seconds for which a new connection may be silent."""

_HANDSHAKE_SECONDS = 60.0
"""Seconds for a TLS handshake: longer than clients wait (30 s). Clients end if it is cut off."""

_NO_DESCRIPTORS_PAUSE = 0.5
"""Seconds in which nothing is accepted after the process has run out of file descriptors."""

_LAST_WORDS_SECONDS = 1.0
_LONGEST_UNREAD = 1024 * 1024
"""Bytes that are still read from a client that is not served."""

_SPEAK_TLS = "Remedy: the client must use TLS: --root-certificates instead of --insecure."
_SPEAK_PLAIN = "Remedy: start the client with --insecure, or the gateway with certificates."

_HTTP2_PREFACE = b"PRI * HTTP/2"
_TLS_HANDSHAKE = b"\x16"
_LOOK_SECONDS = 0.02

_HEAD = 4096
"""Bytes of a request that contain a stock client's version: heads have some 500 bytes."""


@dataclass(frozen=True)
class Served:
    """The servers for a connection."""

    app: HttpApp
    """Serves HTTP."""

    grpc_port: int | None
    """The port where this process serves gRPC to itself, None without one."""

    origins: Origins = field(default_factory=Origins)
    """Learns the client of each connection."""


class _Side:
    """All connections with the same servers."""

    def __init__(self, served: Served) -> None:
        self.connections = Connections(served.app)
        self.passages = Passages(served.grpc_port, served.origins)


class HttpListener:
    """Listens on one port."""

    def __init__(
        self,
        here: Served,
        tls: TlsFiles | None,
        others: Served | None = None,
        address_limit: AddressLimit | None = None,
    ) -> None:
        """`here` serves connections to a loopback address, `others` the rest; None: the same."""
        self._address_limit = address_limit or AddressLimit(0, Balancers())
        self._here = _Side(here)
        self._others = self._here if others is None else _Side(others)
        self._tls = None if tls is None else renewable(tls, lambda: _server_context(tls))
        self._socket: socket.socket | None = None
        self._arriving: dict[asyncio.Task[None], socket.socket] = {}
        """Connections with a protocol that is not known yet."""

    def start(self, address: str) -> int:
        """Listen on `host:port`; return the port. Raises `CannotListen`."""
        self._socket = listen(address)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)
        port: int = self._socket.getsockname()[1]
        return port

    async def stop(self, within: float) -> None:
        """Take no more connections, and close each once it has no open call.

        Connections with open calls after `within` seconds are cut off. Our gRPC server ends
        connections of gRPC.
        """
        self._stop_listening()
        # A client gives up for good if its handshake ends with anything but a reset.
        for task, connection in list(self._arriving.items()):
            reset(connection)
            task.cancel()
        deadline = asyncio.get_running_loop().time() + within
        sides = {self._here, self._others}
        while (
            any(len(side.connections) or len(side.passages) for side in sides)
            and asyncio.get_running_loop().time() < deadline
        ):
            for side in sides:
                side.connections.shut_down()
            await asyncio.sleep(_LOOK_SECONDS)
        for side in sides:
            side.connections.abort()
            side.passages.close()

    def _stop_listening(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(_AT_ONCE):
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as exc:
                self._pause(exc)
                return
            if self._is_full or not self._address_limit.takes(peer[0]):
                reset(connection)
                connection.close()
                continue
            connection.setblocking(False)
            keep_alive(connection)
            task = asyncio.create_task(self._receive(connection, peer[0]), name="http arrival")
            self._arriving[task] = connection
            task.add_done_callback(self._arriving.pop)

    @property
    def _is_full(self) -> bool:
        sides = {self._here, self._others}
        served = sum(len(side.connections) + len(side.passages) for side in sides)
        count = served + len(self._arriving)
        if count >= CONNECTIONS:
            notice("", "connections_refused", limit=CONNECTIONS)
        return count >= CONNECTIONS

    def _pause(self, reason: OSError) -> None:
        notice("", "connections_not_accepted", reason=str(reason))
        loop = asyncio.get_running_loop()
        if self._socket is not None:
            loop.remove_reader(self._socket)
            loop.call_later(_NO_DESCRIPTORS_PAUSE, self._go_on)

    def _go_on(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    async def _receive(self, connection: socket.socket, host: str) -> None:
        """Look at the first bytes, and pass the connection to its server."""
        handed_over = False
        try:
            async with asyncio.timeout(_FIRST_BYTES_SECONDS):
                begin = await _first_bytes(connection)
            handed_over = await self._hand_over(connection, begin, host)
        except TimeoutError:
            notice(host, "silent_connection", seconds=_FIRST_BYTES_SECONDS)
        except OSError:
            pass  # The client has gone.
        finally:
            if not handed_over:
                connection.close()

    async def _hand_over(self, connection: socket.socket, begin: bytes, host: str) -> bool:
        if not begin:
            return False
        speaks_tls = begin.startswith(_TLS_HANDSHAKE)
        is_grpc = begin.startswith(_HTTP2_PREFACE)
        if self._tls is not None:
            if speaks_tls:
                return await self._shake_hands(connection, self._tls.value, host)
            version = version_in(connection.recv(_HEAD, socket.MSG_PEEK))
            notice(host, "no_tls_on_a_tls_port", client_version=version, remedy=_SPEAK_TLS)
            if not is_grpc:
                await _end(connection, f"This port needs TLS. {_SPEAK_TLS}")
            return False
        if speaks_tls:
            notice(host, "tls_on_a_plain_port", remedy=_SPEAK_PLAIN)
            # Clients cannot read the answer, but report that this is no TLS.
            await _end(connection, f"This port has no TLS. {_SPEAK_PLAIN}")
            return False
        side = self._side(connection)
        factory = side.passages.new if is_grpc else side.connections.new
        await asyncio.get_running_loop().connect_accepted_socket(factory, connection)
        return True

    def _side(self, connection: socket.socket) -> _Side:
        # The destination address of the connection cannot be forged: the system accepts no packets
        # for a loopback address from other machines.
        return self._here if is_loopback(connection.getsockname()[0]) else self._others

    async def _shake_hands(self, connection: socket.socket, tls: ssl.SSLContext, host: str) -> bool:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _ByNegotiation(self._side(connection)),
                connection,
                ssl=tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )
        except OSError as exc:
            notice(host, "tls_handshake_failed", reason=str(exc) or repr(exc))
            return False
        return True


class _ByNegotiation(asyncio.Protocol):
    """Passes a connection, after its TLS handshake, to the server of the negotiated protocol."""

    def __init__(self, side: _Side) -> None:
        self._side = side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check the negotiated protocol."""
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        is_grpc = tls.selected_alpn_protocol() == "h2"
        protocol = self._side.passages.new() if is_grpc else self._side.connections.new()
        # uvloop's transports are not of this class.
        cast(asyncio.Transport, transport).set_protocol(protocol)
        protocol.connection_made(transport)


def _server_context(tls: TlsFiles) -> ssl.SSLContext:
    context = server_context(tls)
    # In order of preference: clients that can use both, such as browsers and curl, get HTTP/1.1.
    context.set_alpn_protocols(["http/1.1", "h2"])
    return context


async def _first_bytes(connection: socket.socket) -> bytes:
    """Return the first bytes of a connection, which stay unread; empty without any."""
    while True:
        await _readable(connection)
        begin = connection.recv(len(_HTTP2_PREFACE), socket.MSG_PEEK)
        if len(begin) >= len(_HTTP2_PREFACE) or not _HTTP2_PREFACE.startswith(begin) or not begin:
            return begin
        await asyncio.sleep(_LOOK_SECONDS)  # This is half of a preface, and the rest is on its way.


async def _readable(connection: socket.socket) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(connection)


async def _end(connection: socket.socket, reason: str) -> None:
    """Send the reason why nothing is served here so that the client reads it; disconnect."""
    loop, left = asyncio.get_running_loop(), _LONGEST_UNREAD
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await loop.sock_sendall(connection, errors.plain(400, reason).last_words())
            connection.shutdown(socket.SHUT_WR)
            # With unread data, the system would reset the connection before the client has read the
            # answer.
            while left > 0 and (data := await loop.sock_recv(connection, _LONGEST_UNREAD)):
                left -= len(data)
