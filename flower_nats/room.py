"""How much room is left on a disk or under a limit, and for how long it will do."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

_REMEMBERED = 3600.0
"""Seconds of the past from which the future is guessed."""

_LEAST = 900.0
"""Seconds that must have been seen for a guess: one large run comes and goes within minutes."""

_LOW_SHARE = 0.1
"""The share of the whole that is little."""

_LOW_HOURS = 24.0
"""Hours that are few: somebody has to act today."""


@dataclass(frozen=True)
class Room:
    """The room in one place, right now."""

    free: int
    """Bytes."""

    size: int
    """Bytes of the whole."""

    hours_left: float | None
    """Hours until it is full, if it fills on as in the last hour; None if it does not fill."""

    @property
    def is_low(self) -> bool:
        """Whether somebody should do something about it."""
        return self.free < _LOW_SHARE * self.size or (
            self.hours_left is not None and self.hours_left < _LOW_HOURS
        )


class RoomTrend:
    """Remembers how much was free, and when."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, free: int, size: int, now: float | None = None) -> Room:
        """Note what is free of `size` bytes now, in seconds of a clock that never goes back."""
        now = time.monotonic() if now is None else now
        self._seen.append((now, free))
        while now - self._seen[0][0] > _REMEMBERED:
            self._seen.popleft()
        since, was_free = self._seen[0]
        span, filled = now - since, was_free - free
        hours = free / filled * span / 3600 if span >= _LEAST and filled > 0 else None
        return Room(free, size, hours)
