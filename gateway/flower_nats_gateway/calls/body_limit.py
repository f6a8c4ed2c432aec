"""Large bodies pass one after the other, so that memory does not grow with the number of callers.

A gRPC server reads a request as soon as its call arrives; called as a stream of one message, which is
the same on the wire, it reads when we ask, and flow control holds the caller back until then.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from flower_nats.model.errors import ApiError, ErrorCode

_T = TypeVar("_T")

PLACES = 4
"""Large bodies that are in hand at once, in each direction."""

SMALL = 64 * 1024
"""Bytes up to which a body counts as small and needs no place."""

SLOW = 1.0
"""Seconds after which a transfer no longer counts: callers on slow lines must not hold up others, and
what is slow to arrive or to leave takes little memory at a time."""


ROOM = 256 * 1024 * 1024
"""Bytes of large answers that leave at once where the transport takes each as a whole. One that is
alone may be larger."""

PATIENCE = 20.0
"""Seconds for which a large answer waits for room, before its caller is told to come again."""


class Room:
    """Lets large answers of `ROOM` bytes through at a time, in the order in which they come."""

    def __init__(self) -> None:
        self._free = ROOM
        self._waiting = deque[tuple[int, asyncio.Future[None]]]()

    async def enter(self, size: int) -> Callable[[], None]:
        """Wait for room for so many bytes; return what gives it up. Raises `ApiError` (OVERLOADED)."""
        size = min(size, ROOM)
        place = asyncio.get_running_loop().create_future()
        entry = (size, place)
        self._waiting.append(entry)
        self._admit()
        try:
            async with asyncio.timeout(PATIENCE):
                await place
        except BaseException as exc:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._admit()
            else:
                self._leave(size)
            if not isinstance(exc, TimeoutError):
                raise
            reason = f"no room for an answer of {size} bytes within {PATIENCE:g} s"
            raise ApiError(ErrorCode.OVERLOADED, reason) from None
        return partial(self._leave, size)

    def _admit(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, place = self._waiting.popleft()
            self._free -= size
            # One whose caller has gone in this moment gives its room up itself.
            if not place.done():
                place.set_result(None)

    def _leave(self, size: int) -> None:
        self._free += size
        self._admit()


class Place:
    """One call's place in the queue, which it holds from the start."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._is_left = False

    def leave(self) -> None:
        """Give the place up; doing so again does nothing."""
        if not self._is_left:
            self._is_left = True
            self._places.release()

    def leave_later(self) -> asyncio.TimerHandle:
        """Give the place up once it was held for longer than `SLOW`."""
        return asyncio.get_running_loop().call_later(SLOW, self.leave)

    async def transfer(self, moving: Awaitable[_T]) -> _T:
        """Wait for bytes to come or go; the place is given up if that takes longer than `SLOW`."""
        patience = self.leave_later()
        try:
            return await moving
        finally:
            patience.cancel()


class BodyLimit:
    """Lets `PLACES` calls with large bodies through at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(PLACES)

    async def enter(self) -> Place:
        """Wait for a place, which is to be left again."""
        await self._places.acquire()
        return Place(self._places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Hold a place until the end of the context, or until it is given up."""
        place = await self.enter()
        try:
            yield place
        finally:
            place.leave()
