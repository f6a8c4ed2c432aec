"""Operations that can be stopped, failed and ended between any two requests to the broker.

An `Operation` is a call that runs inside one replica. Its `SteppedConnection` asks for a turn
before each request to the broker. The test decides what happens at this point: the operation goes
on, stays there for any time (a stalled process), ends there (a killed process), loses the request
or its answer, or makes the request twice. The broker is real; the test controls only its clock, and
the time for which it remembers message ids.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from flower_nats.broker.connection import PATIENCE, Connection, Headers, Record, Stored
from flower_nats.broker.core_connection import BrokerClient
from flower_nats.broker.streams import DUPLICATE_WINDOW
from flower_nats.model.errors import Unavailable

T = TypeVar("T")

_QUIET_TURNS = 15
"""Idle turns of the event loop after which an operation counts as waiting."""


class Fate(Enum):
    """The fate of one request to the broker."""

    ANSWERED = "it is made, and its answer arrives"
    LOST = "it never reaches the broker"
    UNANSWERED = "it is made, and its answer is lost"
    REPEATED = "it is made, its answer is lost, and it is made again"


class Operation:
    """A call in a replica, which goes on only by turns."""

    def __init__(self, name: str, work: Callable[[], Awaitable[Any]], hints: bool = True) -> None:
        self.name = name
        self.hints = hints
        """Whether the operation's hints arrive."""
        self.requests = 0
        """The number of its requests so far."""
        self._parked: list[asyncio.Future[Fate]] = []
        self._under_way: set[asyncio.Future[None]] = set()
        self._ended = False
        context = contextvars.copy_context()
        context.run(_current.set, self)
        self._task = asyncio.get_running_loop().create_task(_await(work), context=context)

    def __repr__(self) -> str:
        return f"<{self.name} after {self.requests} requests>"

    @property
    def answered(self) -> bool:
        """Whether the operation has its outcome; its background work may still go on."""
        return self._task.done()

    @property
    def over(self) -> bool:
        """Whether the operation and its background work have ended."""
        return self.answered and not self._parked and not self._under_way

    def outcome(self) -> Any:
        """Return the result of the call, or raise its exception."""
        return self._task.result()

    async def turn(self, request: Callable[[], Awaitable[T]]) -> T:
        """Make a request at this operation's next turn."""
        if self._ended:
            raise asyncio.CancelledError
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Fate] = loop.create_future()
        self._parked.append(place)
        try:
            fate = await place
        finally:
            if place in self._parked:
                self._parked.remove(place)
        self.requests += 1
        if fate is Fate.LOST:
            raise Unavailable("the request was lost")
        under_way: asyncio.Future[None] = loop.create_future()
        self._under_way.add(under_way)
        try:
            answer = await request()
            if fate is Fate.REPEATED:
                answer = await request()
        finally:
            self._under_way.discard(under_way)
            under_way.set_result(None)
        if fate is Fate.UNANSWERED:
            raise Unavailable("the answer was lost")
        return answer

    async def settle(self) -> None:
        """Wait until the operation is over or needs a turn to go on."""
        quiet = 0
        while quiet < _QUIET_TURNS:
            if self._under_way:
                await asyncio.wait(self._under_way)
                quiet = 0
            await asyncio.sleep(0)
            quiet += 1

    async def go_on(self, requests: int, fate: Fate = Fate.ANSWERED) -> bool:
        """Let the operation make so many requests with this fate; return whether it goes on."""
        for _ in range(requests):
            await self.settle()
            if not self._parked:
                return False
            self._parked.pop(0).set_result(fate)
        await self.settle()
        return not self.over

    async def finish(self) -> None:
        """Let the operation run to its end, or until it waits for another operation."""
        while await self.go_on(1):
            pass

    async def end(self) -> None:
        """End the operation at this point, like a killed process: it makes no further request."""
        self._ended = True
        for place in self._parked:
            place.cancel()
        await self.leave()

    async def leave(self) -> None:
        """Cancel the operation at this point: its client has disconnected."""
        self._task.cancel()
        await self.finish()


_current: contextvars.ContextVar[Operation | None] = contextvars.ContextVar(
    "operation", default=None
)


async def _await(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


class Clock:
    """The clock of a test: it moves on slowly by itself, and jumps when the test says so.

    The broker's times of storing are converted to this clock, too.
    """

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Reset the clock."""
        self.jumped = 0.0
        """Seconds by which the test has moved the clock on."""
        self._ticks = 0
        self._jumps: list[tuple[datetime, float]] = []

    def time(self) -> float:
        """Unix time: the same in every run of the same steps."""
        self._ticks += 1
        return 2_000_000_000.0 + self.jumped + self._ticks * 1e-5

    def monotonic(self) -> float:
        """Monotonic time, like `time.monotonic`."""
        return time.monotonic() + self.jumped

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self.jumped += seconds
        self._jumps.append((datetime.now(UTC), self.jumped))

    def shown(self, moment: str) -> str:
        """Convert a time of the broker to this clock."""
        real = datetime.fromisoformat(moment)
        passed = [jumped for at, jumped in self._jumps if at <= real]
        return _moment(real + timedelta(seconds=passed[-1] if passed else 0.0))

    def real(self, moment: str) -> str:
        """Convert a time of this clock to a time of the broker."""
        shown = datetime.fromisoformat(moment)
        for at, jumped in reversed(self._jumps):
            real = shown - timedelta(seconds=jumped)
            if real >= at:
                return _moment(real)
            if shown >= at + timedelta(seconds=self._jumped_before(at)):
                # The time is within a jump.
                return _moment(at)
        return moment

    def _jumped_before(self, moment: datetime) -> float:
        passed = [jumped for at, jumped in self._jumps if at < moment]
        return passed[-1] if passed else 0.0

    def as_datetime(self) -> type[datetime]:
        """Return a `datetime` class with this clock's `now`."""
        clock = self

        class Moment(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + timedelta(seconds=clock.jumped)

        return Moment


def _moment(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@dataclass
class Memory:
    """The broker's memory of message ids: for a while; over a restart, of stored messages alone."""

    clock: Clock
    name: str
    """A prefix that keeps the ids of tests apart."""
    _known: dict[str, tuple[int, float, str, int]] = field(default_factory=dict)

    def spell(self, message_id: str) -> str:
        """Return the id that the broker gets for a message."""
        generation, at, _, _ = self._known.get(message_id, (0, self.clock.jumped, "", 0))
        if self.clock.jumped - at >= DUPLICATE_WINDOW:
            generation += 1
        return f"{self.name}.{generation}.{message_id}"

    def note(self, message_id: str, spelt: str, subject: str, stored: Stored) -> None:
        """Remember that the broker has stored a message under an id."""
        if not stored.duplicate:
            generation = int(spelt.split(".")[1])
            self._known[message_id] = (generation, self.clock.jumped, subject, stored.sequence)

    async def restart(self, connection: Connection, stream: str) -> None:
        """Forget the ids of messages that the broker does not hold."""
        for message_id, (generation, at, subject, sequence) in list(self._known.items()):
            record = await connection.last(stream, subject)
            if record is None or record.sequence != sequence:
                self._known[message_id] = (generation + 1, at, subject, 0)


class SteppedConnection(Connection):
    """A connection: each request waits for the turn of its operation."""

    def __init__(self, client: BrokerClient) -> None:
        super().__init__(client)
        self.begin(Clock(), "")

    def begin(self, clock: Clock, name: str) -> None:
        """Begin a test."""
        self.clock = clock
        self.memory = Memory(clock, name)
        self.hear: Callable[[str, bytes], Awaitable[None]] | None = None
        """Receives the hints."""

    async def hint(self, subject: str, payload: bytes = b"") -> None:
        operation = _current.get()
        if self.hear is not None and (operation is None or operation.hints):
            await self.hear(subject, payload)

    async def store(
        self,
        subject: str,
        data: bytes | memoryview,
        *,
        headers: Headers | None = None,
        message_id: str = "",
        expect: tuple[str, int] | None = None,
        ttl: float = 0.0,
        patience: float = PATIENCE,
        await_room: bool = True,
    ) -> Stored:
        async def request() -> Stored:
            spelt = self.memory.spell(message_id) if message_id else ""
            stored = await store(
                subject, data, headers=headers, message_id=spelt, expect=expect, ttl=ttl
            )
            if message_id:
                self.memory.note(message_id, spelt, subject, stored)
            return stored

        store = super().store
        return await _turn(request)

    async def next(self, stream: str, subject: str, after: int = 0) -> Record | None:
        get = super().next
        return self._show(await _turn(lambda: get(stream, subject, after)))

    async def last(self, stream: str, subject: str, patience: float = PATIENCE) -> Record | None:
        get = super().last
        return self._show(await _turn(lambda: get(stream, subject)))

    async def first_since(self, stream: str, subject: str, since: str) -> Record | None:
        get, real = super().first_since, self.clock.real(since)
        return self._show(await _turn(lambda: get(stream, subject, real)))

    async def fetch(self, stream: str, subject: str, *, large: bool = False) -> Record | None:
        get = super().fetch
        return self._show(await _turn(lambda: get(stream, subject, large=large)))

    async def subjects(self, stream: str, subject: str) -> list[str]:
        get = super().subjects
        return await _turn(lambda: get(stream, subject))

    async def info(self, stream: str) -> dict[str, Any]:
        get = super().info
        return await _turn(lambda: get(stream))

    async def purge(self, stream: str, subject: str, up_to: int = 0) -> int:
        purge = super().purge
        return await _turn(lambda: purge(stream, subject, up_to))

    def _show(self, record: Record | None) -> Record | None:
        if record is None or not record.time:
            return record
        shown = self.clock.shown(record.time)
        return Record(record.subject, record.sequence, record.data, record.headers, shown)


async def _turn(request: Callable[[], Awaitable[T]]) -> T:
    operation = _current.get()
    return await (operation.turn(request) if operation is not None else request())
