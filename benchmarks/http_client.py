"""HTTP/1.1 as a flwr client speaks it through httpx 0.28.1, for less CPU than httpx takes.

For the server, the client looks the same. It makes at most one call at a time on a connection,
sends head and body one after the other, and keeps a connection for 5 s after a call. It resumes no
TLS session, and closes a connection without a TLS close_notify.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import cast

KEPT_SECONDS = 5.0
"""How long a connection without a call is kept."""

_LONGEST_HEAD = 64 * 1024
# All connections read heads into one buffer: each copies its bytes before the next one reads.
_buffer = bytearray(_LONGEST_HEAD)
_END_OF_HEAD = b"\r\n\r\n"


class TransportError(Exception):
    """A connection broke, could not be made, or was silent for too long."""


@dataclass(frozen=True)
class Answer:
    """The answer to a call."""

    status: int
    body: bytes | bytearray


class _Body:
    """The body of an answer, as far as it has come."""

    def __init__(self, status: int, length: int) -> None:
        self.status = status
        self.content = bytearray(length)
        self.filled = 0

    @property
    def is_whole(self) -> bool:
        return self.filled == len(self.content)


class Connection(asyncio.BufferedProtocol):
    """One connection, with at most one call at a time."""

    def __init__(self) -> None:
        self.idle_since: float | None = None
        """When the last call ended; None during a call."""
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._body: _Body | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._keep = True
        self._moved_at = 0.0
        self._unsent = 0
        self._watcher: asyncio.TimerHandle | None = None

    async def call(self, head: bytes, body: bytes, patience: float) -> Answer:
        """Send a request and return its answer; silence for ``patience`` seconds ends the call.

        Raises:
            TransportError
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self.idle_since = None
        answer: asyncio.Future[Answer] = loop.create_future()
        self._answer = answer
        self._moved_at = loop.time()
        self._watcher = loop.call_later(patience, self._watch, patience)
        try:
            self._transport.write(head)
            # The event loop sends the head before it goes on, so the body is sent by itself.
            await asyncio.sleep(0)
            if body and not answer.done():
                self._transport.write(body)
            return await answer
        finally:
            self._watcher.cancel()
            self._answer = None
            if not answer.done() or answer.cancelled() or not self._keep:
                self.abort()
            self.idle_since = time.monotonic()

    def abort(self) -> None:
        """Close the connection at once."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def _watch(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._moved_at = loop.time()
        self._unsent = unsent
        if (left := self._moved_at + patience - loop.time()) > 0:
            self._watcher = loop.call_later(left, self._watch, patience)
        else:
            self._fail("silence")

    def _fail(self, reason: str) -> None:
        self.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(TransportError(reason))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A transport of uvloop is not of this class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"closed by the server: {exc}")

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body is None:
            return memoryview(_buffer)
        return memoryview(self._body.content)[self._body.filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._moved_at = asyncio.get_running_loop().time()
        if self._answer is None:
            self.abort()
        elif self._body is not None:
            self._body.filled += nbytes
        else:
            self._head += _buffer[:nbytes]
            self._read_head()
        if self._body is not None and self._body.is_whole:
            whole, self._body = self._body, None
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(Answer(whole.status, whole.content))

    def _read_head(self) -> None:
        head, end, rest = self._head.partition(_END_OF_HEAD)
        if not end:
            if len(self._head) > _LONGEST_HEAD:
                self._fail("an endless head")
            return
        self._head = b""
        try:
            self._body, self._keep = parse_head(head)
        except ValueError as exc:
            self._fail(str(exc))
            return
        if len(rest) > len(self._body.content):
            self._fail("more than the announced answer")
            return
        self._body.content[: len(rest)] = rest
        self._body.filled = len(rest)


def parse_head(head: bytes) -> tuple[_Body, bool]:
    """Read the head of an answer; return its empty body, and whether the connection is kept.

    Raises:
        ValueError: The head is not that of an answer with a length.
    """
    first, *lines = head.split(b"\r\n")
    if not first.startswith(b"HTTP/1.1 "):
        raise ValueError(f"not an answer: {first[:80]!r}")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)}
    if b"content-length" not in fields or b"content-encoding" in fields:
        raise ValueError(f"an answer of no plain length: {head[:300]!r}")
    keep = fields.get(b"connection", b"").lower() != b"close"
    return _Body(int(first[9:12]), int(fields[b"content-length"])), keep


class HttpClient:
    """The connections of one client to one server."""

    def __init__(self, address: str, tls: ssl.SSLContext | None) -> None:
        self.opened = 0
        """Connections opened so far."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._tls = tls
        self._connections: list[Connection] = []

    async def post(self, head: bytes, body: bytes, patience: float) -> Answer:
        """Make a call on a connection that is free, or on a new one.

        Raises:
            TransportError
        """
        self._close_expired()
        free = (one for one in self._connections if one.idle_since is not None)
        connection = next(free, None) or await self._open(patience)
        try:
            return await connection.call(head, body, patience)
        finally:
            self._close_expired()

    async def _open(self, patience: float) -> Connection:
        self.opened += 1
        try:
            async with asyncio.timeout(patience):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as exc:
            raise TransportError(f"no connection: {exc}") from exc
        self._connections.append(connection)
        return connection

    def _close_expired(self) -> None:
        # As in httpcore, expiry is checked only when a call begins or ends.
        oldest = time.monotonic() - KEPT_SECONDS
        for one in list(self._connections):
            if one.idle_since is not None and one.idle_since < oldest:
                one.abort()
            if one.is_closed:
                self._connections.remove(one)

    def close(self) -> None:
        """Close all connections."""
        for one in self._connections:
            one.abort()


def tls_context(certificate: str | None) -> ssl.SSLContext | None:
    """Return the TLS context that httpx makes from a root certificate; None without TLS."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    context.set_alpn_protocols(["http/1.1"])
    return context
