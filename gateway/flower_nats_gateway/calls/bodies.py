"""The bodies that are under way: how many bytes of them a gateway holds, and for how long.

Bytes that arrive are life: a body on a slow line takes as long as it takes. One that has stopped is
ended. So is, where more bytes are held than may be, the one that holds the most for what comes of it:
its caller comes again. Callers that have proved to be a node or a task have a pool of their own, for
strangers must not keep a training from its models.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from flower_nats.metrics import Metric, by_label, gauge
from flower_nats.model.errors import ApiError, ErrorCode, too_long
from flower_nats.wire.methods import CallerKind, Method
from flower_nats_gateway.calls.answer_room import AnswerRoom
from flower_nats_gateway.calls.wire import GRPC, HTTP, Wire

_T = TypeVar("_T")

_MIB = 1024 * 1024

POOL = 256 * _MIB
"""Bytes of bodies of nodes and tasks. One that is alone may be larger."""

STRANGERS_POOL = 64 * _MIB
"""Bytes of bodies of everybody else: `flwr run` sends 11 MiB at most."""

SHARE = 0.5
"""Of a pool, what one address may hold."""

PAUSE = 60.0
"""Seconds without a byte after which a body has stopped."""

SLOWEST = 4096.0
"""Bytes a second that a body must come with on average, after the first `PAUSE` seconds: it is for who
sends a byte now and then. A line of 1 Mbit/s has 30 times as many, and may be shared by many bodies."""

PATIENCE = 20.0
"""Seconds for which a large body that nothing was read of yet waits for room. Clients over HTTP give up
after 30 s."""

_LARGE = _MIB
"""Bytes from which a body waits for room."""

_IDLE = 64 * 1024
"""Bytes that have come lately below which a body makes room for one that waits."""

_LATELY = 10.0
"""Seconds after which what has come counts half."""

_LOOK_SECONDS = 0.25

_PROVEN = (CallerKind.NODE, CallerKind.TASK)


class Body:
    """One body, from the time that it is asked for to the end of its call."""

    def __init__(self, pool: "_Pool", longest: int, host: str) -> None:
        self.longest = longest
        """Bytes that it may have."""
        self.host = host
        self.size = 0
        """Bytes of it that are here."""
        self._begun = self._moved = _now()
        self._recent = 0.0
        self._pool = pool
        self._timeout: asyncio.Timeout | None = None
        self._why = ApiError(ErrorCode.BODY_TOO_SLOW, "")

    async def receive(self, reading: Awaitable[_T]) -> _T:
        """Return what `reading` does. Raises `ApiError` if the body is ended before."""
        try:
            async with asyncio.timeout(None) as self._timeout:
                return await reading
        except TimeoutError:
            raise self._why from None
        finally:
            self._timeout = None

    def grow(self, count: int) -> None:
        """Note that so many bytes more have come. Raises `ApiError` if they are too many."""
        if count <= 0:
            return
        self._recent, self._moved = self.recent + count, _now()
        self.size += count
        self._pool.note(self, count)
        if self.size > self.longest:
            raise self.too_long()

    def too_long(self) -> ApiError:
        """Return the refusal of a body that is longer than it may be."""
        return too_long(self.longest)

    @property
    def is_arriving(self) -> bool:
        """Whether more of it may come."""
        return self._timeout is not None

    @property
    def recent(self) -> float:
        """The bytes that have come lately; those of `_LATELY` seconds ago count half."""
        return self._recent * math.exp2((self._moved - _now()) / _LATELY)

    @property
    def has_stopped(self) -> bool:
        """Whether nothing has come for too long, or next to nothing."""
        return _now() > min(self._moved, self._begun + self.size / SLOWEST) + PAUSE

    def end(self, why: ApiError) -> None:
        """Have it end before it is whole."""
        self._why = why
        if self._timeout is not None:
            self._timeout.reschedule(_now())

    def close(self) -> None:
        """Forget it: its call has ended."""
        self._pool.forget(self)


class _Pool:
    """Bodies that share a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bodies: set[Body] = set()
        self._by_host: Counter[str] = Counter()
        self._waiting: set[asyncio.Future[None]] = set()
        self.size = 0
        self.ended = 0

    async def add(self, longest: int, host: str, *, may_be_large: bool) -> Body:
        if may_be_large and self._is_full(host):
            await self._room(host)
        body = Body(self, longest, host)
        self._bodies.add(body)
        return body

    def note(self, body: Body, count: int) -> None:
        """Count bytes that have come; end bodies if they are too many."""
        if body not in self._bodies:
            return
        self.size += count
        self._by_host[body.host] += count
        while self.size > self._limit and self._end_worst(self._bodies):
            pass
        while self._share_of(body.host) > 1 and self._end_worst(self._of(body.host)):
            pass

    def forget(self, body: Body) -> None:
        if body not in self._bodies:
            return
        self._bodies.discard(body)
        self.size -= body.size
        self._by_host[body.host] -= body.size
        if not self._by_host[body.host]:
            del self._by_host[body.host]
        if body.size:
            for one in self._waiting:
                if not one.done():
                    one.set_result(None)

    def look(self) -> bool:
        """End what has stopped; return whether anything is arriving."""
        arriving = [one for one in self._bodies if one.is_arriving]
        for one in arriving:
            if one.has_stopped:
                self._end(one, ErrorCode.BODY_TOO_SLOW, "it has stopped")
        if self._waiting:
            for one in arriving:
                if one.size > _IDLE > one.recent:
                    self._end(one, ErrorCode.OVERLOADED, "others wait")
        return bool(arriving)

    async def _room(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE):
                while self._is_full(host):
                    waiting = loop.create_future()
                    self._waiting.add(waiting)
                    try:
                        await waiting
                    finally:
                        self._waiting.discard(waiting)
        except TimeoutError:
            reason = f"{self.size} bytes of bodies are under way"
            raise ApiError(ErrorCode.OVERLOADED, reason) from None

    def _is_full(self, host: str) -> bool:
        """Whether a large body has to wait. Those that have begun need the other half."""
        return self.size > self._limit / 2 or self._share_of(host) > 0.5

    def _share_of(self, host: str) -> float:
        return self._by_host[host] / (self._limit * SHARE) if host else 0.0

    def _of(self, host: str) -> Iterable[Body]:
        return [one for one in self._bodies if one.host == host]

    def _end_worst(self, among: Iterable[Body]) -> bool:
        """End the body that holds the most for what comes of it; return whether there is one."""
        arriving = [one for one in among if one.is_arriving]
        if not arriving or len(self._bodies) == 1:
            return False
        worst = max(arriving, key=lambda one: one.size / (one.recent + SLOWEST))
        self._end(worst, ErrorCode.OVERLOADED, "there is no room for it")
        return True

    def _end(self, body: Body, code: ErrorCode, reason: str) -> None:
        self.ended += 1
        body.end(ApiError(code, f"{reason}; {body.size} bytes of it have come"))
        self.forget(body)


class Bodies:
    """All bodies that are under way to a gateway."""

    def __init__(self) -> None:
        self._pools = {True: _Pool(POOL), False: _Pool(STRANGERS_POOL)}
        self._answers = {wire: AnswerRoom(wire.answer_room) for wire in (GRPC, HTTP)}
        self.shared = True
        """Whether each address has a share, and no more: not where all come by a balancer's."""
        self._look_again: asyncio.TimerHandle | None = None

    async def begin(self, method: Method, host: str, announced: int | None = None) -> Body:
        """Return a body of a call, to be closed with it.

        Waits where it may be large and there is no room. `announced` is how long it will be, None if
        that is not known. Raises `ApiError` (OVERLOADED, BODY_TOO_LONG).
        """
        pool = self._pools[method.caller in _PROVEN]
        host = host if self.shared else ""
        longest = method.longest_request
        size = longest if announced is None else announced
        body = await pool.add(longest, host, may_be_large=size > _LARGE)
        if size > longest:
            body.close()
            raise body.too_long()
        if self._look_again is None:
            self._look_later()
        return body

    async def leave(self, wire: Wire, host: str, size: int) -> Callable[[], None]:
        """Wait until there is room for an answer; return what is to be called once its client has it.

        Raises `ApiError` (OVERLOADED).
        """
        return await self._answers[wire].enter(host if self.shared else "", size)

    def metrics(self) -> list[Metric]:
        """Return the counts."""
        names = {True: "nodes and tasks", False: "others"}
        return [
            gauge(
                "request_body_bytes",
                "Bytes of requests that are under way or being served.",
                sum(pool.size for pool in self._pools.values()),
            ),
            gauge(
                "answer_body_bytes",
                "Bytes of large answers that their clients have not taken yet.",
                sum(room.size for room in self._answers.values()),
            ),
            by_label(
                "request_bodies_ended_total",
                "Requests that stopped arriving, or for which there was no room, by their callers.",
                "callers",
                {names[proven]: float(pool.ended) for proven, pool in self._pools.items()},
            ),
        ]

    def _look_later(self) -> None:
        self._look_again = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._look_again = None
        if any([pool.look() for pool in self._pools.values()]):
            self._look_later()


def _now() -> float:
    return asyncio.get_running_loop().time()
