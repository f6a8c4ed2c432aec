"""A trivial TCP balancer, one listening port (`Line`) for each client and API.

It sends each connection to the next healthy gateway, keeps a connection open as long as both ends
do, and refuses connections while no gateway is healthy. No L4 balancer does less, so a client that
works here works behind any other. Each client has a line of its own, so its connections can be cut
at a chosen moment. The frames on the connection tell that moment (`frames.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Protocol

from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.transports.http.sockets import keep_alive
from harness.channels import WireName
from harness.frames import (
    DATA,
    HEADERS,
    PREFACE,
    Frame,
    Frames,
    Http1Answers,
    Http1Requests,
    Splitter,
)

_CHECK_SECONDS = 0.5
_CONNECT_SECONDS = 1.0
_ARRIVAL_SECONDS = 0.05


class Target(Protocol):
    """Where a line may lead: a gateway, or an HTTP balancer in front of all gateways."""

    @property
    def name(self) -> str:
        """Its name in logs."""

    @property
    def addresses(self) -> Mapping[str, str]:
        """`host:port` of each API over gRPC, by API; of all APIs over HTTP, by `Http`."""

    async def is_healthy(self, timeout: float) -> bool:
        """Whether the target takes calls."""


class Moment(Enum):
    """The moment of a call at which its connection is cut."""

    REQUEST = "before the gateway sees the request"
    BODY = "in the middle of the request's body"
    WORK = "when the gateway has the request, before it has answered"
    ANSWER = "when the gateway has answered, before the client sees it"


@dataclass
class Cut:
    """One cut that is to be made on a line."""

    moment: Moment
    marker: bytes
    """Bytes that the head of the request must hold."""
    body_bytes: int
    """For BODY: bytes of the body that the gateway gets. A call with a shorter body passes."""
    and_shut: bool
    """Whether the line then serves no connection until `open_again`."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    stream: int | None = None
    """The stream of the call, once the call has begun."""
    seen: Counter[int] = field(default_factory=Counter)
    """For BODY: bytes seen of this call and of each call that has begun later."""


class _CutNow(Exception):
    """The moment of the cut has come."""


class Line:
    """One client's way to one API."""

    def __init__(self, balancer: Balancer, service: str, wire: WireName) -> None:
        self.wire = wire
        self._balancer = balancer
        self._service = service
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._cut: Cut | None = None
        self._is_open = asyncio.Event()
        self._is_open.set()
        self.callers: list[str] = []
        """The client's IP address of each connection, in order."""

    async def open(self, listener: socket.socket) -> None:
        """Accept connections on this socket."""
        self._server = await asyncio.start_server(self._accept, sock=listener)

    @property
    def address(self) -> str:
        """The address that the client connects to."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        """Cut every connection now."""
        for connection in list(self._connections):
            connection.cancel()

    def cut_at(
        self, moment: Moment, method: str = "", body_bytes: int = 0, *, and_shut: bool = False
    ) -> Cut:
        """Cut the connection of the next call, of this method or of any, at a moment of that call.

        gRPC writes a method's name out once per connection: later calls of it are not found.
        """
        marker = b""
        if method:
            of_http = f"{BY_NAME[(self._service, method)].http_path} HTTP/"
            marker = (of_http if self.wire == "http" else f"/{method}").encode()
        self._cut = Cut(moment, marker, body_bytes, and_shut)
        return self._cut

    def open_again(self) -> None:
        """Serve the connections that have waited since the cut, and all later ones."""
        self._is_open.set()

    async def close(self) -> None:
        """Cut all connections and stop listening."""
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.callers.append(writer.get_extra_info("peername")[0])
        if self.wire == "http":
            # A gateway's TCP keepalive ends here, so the line has one; gRPC's pings are passed on.
            keep_alive(writer.get_extra_info("socket"))
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # Only `close` awaits this task, and asyncio would log the error.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._is_open.wait()
        gateway = await self._balancer.connect("Http" if self.wire == "http" else self._service)
        if gateway is None:
            return
        requests, answers = self._splitters()
        to_client = (answers, gateway[0], writer, self._on_answer)
        to_gateway = (requests, reader, gateway[1], self._on_request)
        ways = [asyncio.create_task(self._pump(*way)) for way in (to_client, to_gateway)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            gateway[1].transport.abort()

    def _splitters(self) -> tuple[Splitter, Splitter]:
        if self.wire == "grpc":
            return Frames(PREFACE), Frames()
        requests = Http1Requests()
        return requests, Http1Answers(requests)

    def _on_request(self, frame: Frame) -> bool:
        """Look at a client's frame; return whether the cut is due after it. Raises `_CutNow`."""
        cut = self._cut
        if cut is None:
            return False
        if frame.kind == HEADERS and cut.stream is None and cut.marker in frame.data:
            cut.stream = frame.stream
            if cut.moment is Moment.REQUEST:
                raise self._made(cut)
        if cut.stream is None:
            return False
        if frame.kind == DATA:
            cut.seen[frame.stream] += len(frame.data)
            if cut.moment is Moment.BODY and cut.seen[frame.stream] > cut.body_bytes:
                raise self._made(cut)
        return cut.moment is Moment.WORK and frame.stream == cut.stream and frame.is_last

    def _on_answer(self, frame: Frame) -> bool:
        """Look at a gateway's frame. Raises `_CutNow`."""
        cut = self._cut
        if cut is None or cut.moment is not Moment.ANSWER:
            return False
        if frame.kind == HEADERS and frame.stream == cut.stream:
            raise self._made(cut)
        return False

    async def _pump(
        self,
        frames: Splitter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        look: Callable[[Frame], bool],
    ) -> None:
        with contextlib.suppress(ConnectionError, _CutNow):
            while data := await reader.read(256 * 1024):
                for frame in frames.feed(data):
                    is_due = look(frame)
                    writer.write(frame.data)
                    if is_due and self._cut is not None:
                        await writer.drain()
                        # The request arrives within this time; its answer takes longer.
                        await asyncio.sleep(_ARRIVAL_SECONDS)
                        raise self._made(self._cut)
                await writer.drain()

    def _made(self, cut: Cut) -> _CutNow:
        self._cut = None
        if cut.and_shut:
            self._is_open.clear()
        cut.done.set()
        return _CutNow()


class Balancer:
    """Checks its targets, and connects lines to healthy ones."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = targets
        self._healthy: set[str] = set()
        self._turn = itertools.count()
        self._checks: list[asyncio.Task[None]] = []
        self._lines: list[Line] = []

    async def __aenter__(self) -> Balancer:
        self._checks = [asyncio.create_task(self._check(one)) for one in self._targets]
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await asyncio.gather(*(line.close() for line in self._lines))

    async def line(
        self, service: str, wire: WireName = "grpc", listener: socket.socket | None = None
    ) -> Line:
        """Open a line to an API: Fleet, Runtime or Control."""
        line = Line(self, service, wire)
        await line.open(listener or socket.create_server(("127.0.0.1", 0)))
        self._lines.append(line)
        return line

    async def until_healthy(self) -> None:
        """Wait until every target takes connections."""
        while len(self._healthy) < len(self._targets):
            await asyncio.sleep(0.05)

    async def connect(self, api: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Connect to an address of the next healthy target; None if there is none."""
        first = next(self._turn)
        count = len(self._targets)
        for target in (self._targets[(first + n) % count] for n in range(count)):
            if target.name not in self._healthy:
                continue
            host, port = target.addresses[api].split(":")
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await asyncio.open_connection(host, int(port))
            except (OSError, TimeoutError):
                continue
        return None

    async def _check(self, target: Target) -> None:
        while True:
            if await target.is_healthy(_CHECK_SECONDS):
                self._healthy.add(target.name)
            else:
                self._healthy.discard(target.name)
            await asyncio.sleep(_CHECK_SECONDS)
