"""How much room is left on a disk or under a limit, and how long it will last."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

_REMEMBERED = 3600.0
"""Seconds of the past that the estimate uses."""

_LEAST = 900.0
"""Seconds of observation that an estimate needs: a large run may come and go within minutes."""

_LOW_SHARE = 0.1
"""Room is low below this share of the whole."""

_LOW_HOURS = 24.0
"""Room is low if it lasts fewer hours: somebody has to act today."""


@dataclass(frozen=True)
class Room:
    """The room in one place, right now."""

    free: int
    """Free bytes."""

    size: int
    """Bytes in all."""

    hours_left: float | None
    """Hours until it is full at the rate of the last hour; None if it does not fill."""

    @property
    def is_low(self) -> bool:
        """Whether somebody should act."""
        return self.free < _LOW_SHARE * self.size or (
            self.hours_left is not None and self.hours_left < _LOW_HOURS
        )


class RoomTrend:
    """Remembers how much was free, and when."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, free: int, size: int, now: float | None = None) -> Room:
        """Note the free bytes of `size` at a moment of the monotonic clock."""
        now = time.monotonic() if now is None else now
        self._seen.append((now, free))
        while now - self._seen[0][0] > _REMEMBERED:
            self._seen.popleft()
        since, was_free = self._seen[0]
        span, filled = now - since, was_free - free
        hours = free / filled * span / 3600 if span >= _LEAST and filled > 0 else None
        return Room(free, size, hours)
