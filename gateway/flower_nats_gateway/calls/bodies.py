"""The bodies that are arriving: how many bytes of them a gateway holds, and for how long.

A body on a slow line may take long, as long as bytes arrive. A body that has stopped is ended. If
too many bytes are held, the body that holds the most for its speed is ended too, and its caller
tries again. Callers that are proven nodes or tasks have their own pool, because strangers must not
keep a training from its models.
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
"""Bytes of bodies of nodes and tasks. A single body may be larger."""

STRANGERS_POOL = 64 * _MIB
"""Bytes of bodies of all other callers: `flwr run` sends at most 11 MiB."""

SHARE = 0.5
"""The share of a pool that one address may hold."""

PAUSE = 60.0
"""Seconds without a byte after which a body has stopped."""

SLOWEST = 4096.0
"""The least average speed of a body, in bytes a second, after the first `PAUSE` seconds. It stops
clients that send single bytes. A line of 1 Mbit/s is 30 times as fast, and may be shared by many
bodies."""

PATIENCE = 20.0
"""Seconds for which a large body waits for room before it is read. Clients over HTTP give up after
30 s."""

_LARGE = _MIB
"""Size in bytes from which a body waits for room."""

_IDLE = 64 * 1024
"""A body with fewer recent bytes than this makes room for one that waits."""

_LATELY = 10.0
"""Seconds after which arrived bytes count half."""

_LOOK_SECONDS = 0.25

_PROVEN = (CallerKind.NODE, CallerKind.TASK)


class Body:
    """One body, from before it is read to the end of its call."""

    def __init__(self, pool: "_Pool", longest: int, host: str) -> None:
        self.longest = longest
        """The most bytes that it may have."""
        self.host = host
        self.size = 0
        """Bytes that have arrived."""
        self._begun = self._moved = _now()
        self._recent = 0.0
        self._pool = pool
        self._timeout: asyncio.Timeout | None = None
        self._why = ApiError(ErrorCode.BODY_TOO_SLOW, "")

    async def receive(self, reading: Awaitable[_T]) -> _T:
        """Return the result of `reading`. Raises `ApiError` if the body is ended before."""
        try:
            async with asyncio.timeout(None) as self._timeout:
                return await reading
        except TimeoutError:
            raise self._why from None
        finally:
            self._timeout = None

    def grow(self, count: int) -> None:
        """Note that `count` further bytes have come. Raises `ApiError` if the body is too long."""
        if count <= 0:
            return
        self._recent, self._moved = self.recent + count, _now()
        self.size += count
        self._pool.note(self, count)
        if self.size > self.longest:
            raise self.too_long()

    def too_long(self) -> ApiError:
        """Return the refusal of a body that is too long."""
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
        """Whether nothing, or almost nothing, has come for too long."""
        return _now() > min(self._moved, self._begun + self.size / SLOWEST) + PAUSE

    def end(self, why: ApiError) -> None:
        """End the body before it is complete."""
        self._why = why
        if self._timeout is not None:
            self._timeout.reschedule(_now())

    def close(self) -> None:
        """Forget the body, because its call has ended."""
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
        """Count arrived bytes; end bodies if there are too many bytes."""
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
        """End bodies that have stopped; return whether any body is arriving."""
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
        """Whether a large body has to wait. Bodies that have begun need the other half."""
        return self.size > self._limit / 2 or self._share_of(host) > 0.5

    def _share_of(self, host: str) -> float:
        return self._by_host[host] / (self._limit * SHARE) if host else 0.0

    def _of(self, host: str) -> Iterable[Body]:
        return [one for one in self._bodies if one.host == host]

    def _end_worst(self, among: Iterable[Body]) -> bool:
        """End the body that holds the most for its speed; return whether there is one."""
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
    """All bodies that are arriving at a gateway."""

    def __init__(self) -> None:
        self._pools = {True: _Pool(POOL), False: _Pool(STRANGERS_POOL)}
        self._answers = {wire: AnswerRoom(wire.answer_room) for wire in (GRPC, HTTP)}
        self.shared = True
        """Whether each address has only a share; not if all clients come from a balancer's
        address."""
        self._look_again: asyncio.TimerHandle | None = None

    async def begin(self, method: Method, host: str, announced: int | None = None) -> Body:
        """Return the body of a call, which must be closed with the call.

        This waits if the body may be large and there is no room. `announced` is its length, None if
        unknown. Raises `ApiError` (OVERLOADED, BODY_TOO_LONG).
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
        """Wait for room for an answer; return a function to call once the client has it.

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
