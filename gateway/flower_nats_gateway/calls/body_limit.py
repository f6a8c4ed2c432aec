"""Large bodies pass a few at a time, so that memory does not grow with the number of callers.

A gRPC server reads a unary request as soon as the call arrives. If the method is served as a stream
of one message, which is the same on the wire, it reads when we ask, and flow control holds the
caller back until then.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

_T = TypeVar("_T")

PLACES = 4
"""Large bodies that pass at once, in each direction."""

SMALL = 64 * 1024
"""Bytes up to which a body counts as small and needs no place."""

SLOW = 1.0
"""Seconds after which a transfer no longer counts: callers on slow lines must not hold up others,
and a slow body takes little memory at a time."""


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
        """Give the place up once it has been held for longer than `SLOW`."""
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
        """Wait for a place, which the caller must leave again."""
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
