"""Live pages: one stream of server-sent events a page, which says "look again" and nothing else.

Hints of the runtime tell when something has changed; that one may be lost is why a page looks again
from time to time in any case.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection

_NOT_MORE_OFTEN = 2.0
"""Seconds between two events of a page, more or less: they come at the same moments to all. What comes
after a while of nothing is told at once."""

_AT_LEAST_EVERY = 5.0
"""Seconds after which a page looks again though no hint has come: ages and durations go on."""

_LONGEST = 3600.0
"""Seconds after which a stream ends; the browser begins another one."""

MOST_STREAMS = 512
"""Streams at a time; further browsers look again by themselves."""


class Live:
    """Tells pages when to look again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watchers: dict[int | None, set[asyncio.Event]] = {}
        self._subscriptions: dict[int, list[Any]] = {}
        self._ended = asyncio.Event()
        self.streams = 0

    async def start(self) -> None:
        """Begin to listen to what all pages want to know."""
        for prefix in (subjects.EVENT_RUN, subjects.EVENT_NODE):
            await self._connection.subscribe(f"{prefix}*", self._on_event)
        self._connection.on_reconnect(self._wake_all)

    def end(self) -> None:
        """End all streams: the console leaves."""
        self._ended.set()
        self._wake_all()

    async def events(self, run_id: int | None) -> AsyncIterator[str]:
        """Give the events for a page, as they travel; with `run_id` also those of a run's messages."""
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(run_id, set())
        watchers.add(changed)
        self.streams += 1
        try:
            if run_id is not None:
                await self._listen(run_id)
            until = time.monotonic() + _LONGEST
            yield "retry: 1000\nevent: live\ndata: begun\n\n"
            while time.monotonic() < until and not self._ended.is_set():
                # All pages at one moment: those that look at the same then share answers.
                # What came just before such a moment is followed by the next one.
                left = _until_next(_NOT_MORE_OFTEN)
                await asyncio.sleep(left if left > _NOT_MORE_OFTEN / 2 else left + _NOT_MORE_OFTEN)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_until_next(_AT_LEAST_EVERY)):
                        await changed.wait()
                changed.clear()
                yield f"event: live\ndata: {int(time.time())}\n\n"
        finally:
            self.streams -= 1
            watchers.discard(changed)
            if not watchers:
                self._watchers.pop(run_id, None)
                if run_id is not None:
                    await self._forget(run_id)

    async def _listen(self, run_id: int) -> None:
        if run_id in self._subscriptions:
            return
        mine: list[Any] = []
        self._subscriptions[run_id] = mine

        async def on_hint(_: Any) -> None:
            self._wake(run_id)

        for subject in (
            subjects.wake_run(run_id),
            subjects.wake_session(run_id),
            subjects.wake_log(run_id),
        ):
            mine.append(await self._connection.subscribe(subject, on_hint))

    async def _forget(self, run_id: int) -> None:
        for subscription in self._subscriptions.pop(run_id, []):
            await subscription.unsubscribe()

    async def _on_event(self, message: Any) -> None:
        self._wake_all()

    def _wake_all(self) -> None:
        for run_id in list(self._watchers):
            self._wake(run_id)

    def _wake(self, run_id: int | None) -> None:
        for changed in self._watchers.get(run_id, ()):
            changed.set()


def _until_next(seconds: float) -> float:
    """Return the time until the next moment at which streams wake that wake every so many seconds."""
    return seconds - time.monotonic() % seconds
