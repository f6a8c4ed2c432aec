"""Two replicas in which operations run step by step, each with a planned trouble."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from flower_nats.broker import mailbox as mailbox_module
from flower_nats.broker import subjects
from flower_nats.broker.streams import ensure_streams
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.model.errors import ApiError, ErrorCode, FlowerNatsError
from flower_nats.superlink.housekeeping import messages as housekeeping_module
from flower_nats.wire import messages as wire_module
from flower_nats_gateway.delivery import push_session as push_session_module
from tests.integration.crashing import Clock, Fate, Operation, SteppedConnection
from tests.integration.stepped_federation import Client, Metadata, Replica, Request


@dataclass
class Cluster:
    """A broker, with a connection for each replica and one more for the test."""

    replicas: list[SteppedConnection]
    outside: SteppedConnection
    clock: Clock

    @classmethod
    async def connect(cls, url: str, clock: Clock) -> Cluster:
        """Connect to a broker, and make the streams."""
        one, two, outside = [await SteppedConnection.connect([url], "test") for _ in range(3)]
        await ensure_streams(outside)
        return cls([one, two], outside, clock)

    async def close(self) -> None:
        for connection in (*self.replicas, self.outside):
            await connection.close()


@contextmanager
def own_time() -> Iterator[Clock]:
    """Give the runtime a clock of the test."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in (mailbox_module, wire_module, push_session_module, housekeeping_module):
            patch.setattr(module, "time", clock)
        patch.setattr(housekeeping_module, "datetime", clock.as_datetime())
        # A jump of the clock does not count as an outage in which no client could be heard.
        patch.setattr(housekeeping_module, "_OUTAGE", float("inf"))
        yield clock


@dataclass(frozen=True)
class Plan:
    """The trouble of an operation after so many of its requests to the broker."""

    after: int = 0
    what: str = "nothing"


TROUBLES = ("stall", "cut", "gone", "death", *(fate.name for fate in Fate))
"""`stall`: the operation stops. `cut`: it stops, and its client asks again. `gone`: its client
closes the connection and asks again. `death`: its replica dies. Others: fates of one request."""


@dataclass(eq=False)
class Running:
    """An operation in a replica, and the client that waits for it."""

    operation: Operation
    replica: int
    since: float
    client: Client | None = None
    request: Request | None = None
    heard: bool = False
    """Whether the client has got its answer."""


class Stage:
    """Two replicas and their running operations."""

    def __init__(self, cluster: Cluster) -> None:
        self.clock = cluster.clock
        self.clock.start()
        self.outside = cluster.outside
        self._connections = cluster.replicas
        name = uuid.uuid4().hex
        for connection in (*cluster.replicas, cluster.outside):
            connection.begin(self.clock, name)
            connection.memory = cluster.replicas[0].memory
            connection.hear = self._hear
        self.metadata = Metadata()
        self.replicas = [Replica(one, self.metadata) for one in cluster.replicas]
        self.running: list[Running] = []

    async def clear(self) -> None:
        """Begin with an empty broker."""
        for stream in (subjects.MESSAGES_STREAM, subjects.OBJECTS_STREAM):
            await self.outside.purge(stream, ">")

    async def _hear(self, subject: str, payload: bytes) -> None:
        for replica in self.replicas:
            await replica.wakes.hear(subject, payload)

    def call(self, client: Client, request: Request, replica: int, hints: bool = True) -> Running:
        """Begin to serve a client's call."""
        client.waiting.remove(request)
        client.under_way.add(request)
        serving = self.replicas[replica]
        operation = Operation(request.name, lambda: request.serve(serving), hints)
        return self._add(Running(operation, replica, self.clock.jumped, client, request))

    def sweep(self, replica: int) -> Running:
        """Begin one pass of housekeeping."""
        return self.begin("sweep", replica, self.replicas[replica].housekeeping.sweep())

    def begin(self, name: str, replica: int, work: Coroutine[Any, Any, Any]) -> Running:
        """Begin an operation without a client."""
        return self._add(Running(Operation(name, lambda: work), replica, self.clock.jumped))

    def _add(self, running: Running) -> Running:
        self.running.append(running)
        return running

    async def serve(self, client: Client, replica: int = 0) -> None:
        """Serve all calls of a client without trouble."""
        while client.waiting:
            await self.play(self.call(client, client.waiting[0], replica), Plan())

    async def play(self, running: Running, plan: Plan) -> None:
        """Let an operation run until the plan's trouble, or to its end."""
        operation = running.operation
        if plan.what == "nothing":
            await operation.finish()
        elif await operation.go_on(plan.after):
            await self._trouble(running, plan.what)
        await self.collect()

    async def _trouble(self, running: Running, what: str) -> None:
        operation = running.operation
        if what == "cut":
            _lose(running)
            running.request = None
        elif what == "gone":
            await operation.leave()
        elif what == "death":
            await self.kill(running.replica)
        elif what != "stall":
            await operation.go_on(1, Fate[what])
            await operation.finish()

    async def race(self, racing: list[Running], turns: list[int]) -> None:
        """Let operations make requests by turns, and then finish one after another."""
        for turn in turns:
            await racing[turn % len(racing)].operation.go_on(1)
        for running in racing:
            await running.operation.finish()
        await self.collect()

    async def kill(self, replica: int) -> None:
        """End a replica with its operations; another replica takes its place."""
        for running in self.running:
            if running.replica == replica:
                await running.operation.end()
        self.replicas[replica] = Replica(self._connections[replica], self.metadata)

    async def finish(self, older_than: float = 0.0) -> None:
        """Let all operations of at least this age (in seconds) run to their end."""
        while old := [one for one in self.running if self.clock.jumped - one.since >= older_than]:
            for running in old:
                await running.operation.finish()
            await self.collect()

    async def collect(self) -> None:
        """Give clients the answers that are ready."""
        for running in self.running:
            if running.operation.answered and not running.heard:
                running.heard = True
                await _answer(running)
        self.running = [one for one in self.running if not one.operation.over]


def _lose(running: Running) -> None:
    if running.client is not None and running.request is not None:
        running.client.lose(running.request)


async def _answer(running: Running) -> None:
    client, request = running.client, running.request
    try:
        answer = running.operation.outcome()
    except asyncio.CancelledError:
        _lose(running)
    except ApiError as exc:
        if exc.code is ErrorCode.UNAVAILABLE:
            _lose(running)
            return
        is_app = client is not None and client.node_id == SUPERLINK_NODE_ID
        refused_by = ErrorCode.AUTHENTICATION_FAILED if is_app else ErrorCode.RUN_STATUS_NOT_ALLOWED
        assert exc.code is refused_by, exc
        if client is not None and request is not None:
            client.under_way.discard(request)
    except BaseExceptionGroup as group:
        # The gateway answers with UNAVAILABLE.
        assert group.split(FlowerNatsError)[1] is None, group
        _lose(running)
    else:
        if client is not None and request in client.under_way:
            client.under_way.discard(request)
            await request.answered(answer)
