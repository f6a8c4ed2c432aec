"""A cache of answers to a question, each for a limited time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from flower_nats.model.errors import Unavailable

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_ENTRIES = 50_000

_STALE_SECONDS = 600.0
"""Seconds for which an expired answer still counts while no superlink answers."""

_GRACE = 0.5
"""Seconds to wait for a fresh answer if there is an old one."""


class ExpiringCache(Generic[_K, _V]):
    """Answers to a question, valid for `seconds`; the same question is asked once at a time."""

    def __init__(self, ask: Callable[[_K], Awaitable[_V | None]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._known: OrderedDict[_K, tuple[float, _V]] = OrderedDict()
        self._asking: dict[_K, _Question[_K, _V]] = {}

    async def get(self, key: _K) -> _V | None:
        """Return the answer, None if there is none.

        An expired answer is asked for again. If no superlink answers, the old answer still counts
        for ten minutes, because without superlinks nothing can have changed either. Raises
        `Unavailable`.
        """
        found = self._known.get(key)
        now = time.monotonic()
        if found is not None and found[0] > now:
            return found[1]
        # Other callers wait for the same answer, so a cancelled caller must not cancel the
        # question.
        answer = asyncio.shield(self._learning(key))
        if found is None or found[0] + _STALE_SECONDS < now:
            return await answer
        try:
            return await asyncio.wait_for(answer, _GRACE)
        except (TimeoutError, Unavailable):
            # Unless the answer was dropped in the meantime.
            return found[1] if key in self._known else await self.get(key)

    async def fresh(self, key: _K) -> _V | None:
        """Return a fresh answer, None if there is none. An error keeps the old one."""
        # A question that is already open may bring an old answer.
        if key in self._asking:
            self._asking[key].changes.append(_whatever)
        return await asyncio.shield(self._learning(key))

    def drop(self, matches: Callable[[_K, _V], bool]) -> None:
        """Forget the answers that match: they have changed."""
        self._note(matches)
        for key in [key for key, (_, value) in self._known.items() if matches(key, value)]:
            del self._known[key]

    def doubt(self) -> None:
        """Ask for every answer anew, because some may have changed without a hint."""
        self._note(_whatever)
        now = time.monotonic()
        for key, (until, value) in self._known.items():
            self._known[key] = (min(until, now), value)

    def _note(self, change: Callable[[_K, _V], bool]) -> None:
        for question in self._asking.values():
            question.changes.append(change)

    def _learning(self, key: _K) -> asyncio.Task[_V | None]:
        question = self._asking.get(key)
        if question is None:
            question = self._asking[key] = _Question()
            task = asyncio.create_task(self._learn(key, question), name="learn")
            task.add_done_callback(_look_at)
            question.task = task
        return question.task

    async def _learn(self, key: _K, question: "_Question[_K, _V]") -> _V | None:
        try:
            value = await self._ask_until_it_stays(key, question)
        finally:
            del self._asking[key]
        if value is None:
            self._known.pop(key, None)
            return None
        self._known[key] = (time.monotonic() + self._seconds, value)
        self._known.move_to_end(key)
        if len(self._known) > _ENTRIES:
            self._known.popitem(last=False)
        return value

    async def _ask_until_it_stays(self, key: _K, question: "_Question[_K, _V]") -> _V | None:
        while True:
            question.changes.clear()
            value = await self._ask(key)
            if value is None or not any(change(key, value) for change in question.changes):
                return value


class _Question(Generic[_K, _V]):
    """An open question."""

    def __init__(self) -> None:
        self.changes: list[Callable[[_K, _V], bool]] = []
        """Changes since the question. An answer that matches one of them may be old."""
        self.task: asyncio.Task[_V | None]


def _whatever(_key: object, _value: object) -> bool:
    return True


def _look_at(task: asyncio.Task[object]) -> None:
    # A waiting call may have continued with an old answer.
    if not task.cancelled():
        task.exception()
