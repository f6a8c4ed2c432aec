"""A lasting fault is logged when it begins, once a minute, and when it is over."""

from __future__ import annotations

import asyncio
import time

from structlog.stdlib import BoundLogger

_EVERY = 60.0
"""Seconds between two lines about a fault that lasts."""

_CALM = 5.0
"""Seconds without a failure after which an outage is over. With a full disk, PostgreSQL still
reads, so that attempts fail and succeed by turns."""


class Outage:
    """Something that fails for a while. The log does not show every attempt."""

    def __init__(self, log: BoundLogger, begins: str, ends: str) -> None:
        """`begins` and `ends` are the names of events, such as `database_away` and `database_back`."""
        self._log = log
        self._begins, self._ends = begins, ends
        self._since = 0.0
        self._said_at = 0.0
        self._attempts = 0
        self._calm: asyncio.TimerHandle | None = None

    @property
    def since(self) -> float | None:
        """Since when attempts fail, by the monotonic clock; None while they work."""
        return self._since if self._attempts else None

    def failed(self, reason: str) -> None:
        """Note a failed attempt."""
        now = time.monotonic()
        if self._calm is not None:
            self._calm.cancel()
            self._calm = None
        if not self._attempts:
            self._since = now
        self._attempts += 1
        if self._attempts == 1 or now - self._said_at >= _EVERY:
            self._said_at = now
            self._log.warning(
                self._begins,
                reason=reason,
                attempts=self._attempts,
                seconds=round(now - self._since),
            )

    def worked(self) -> None:
        """Note a successful attempt."""
        if not self._attempts or self._calm is not None:
            return
        seconds = round(time.monotonic() - self._since)
        self._calm = asyncio.get_running_loop().call_later(_CALM, self._end, seconds)

    def _end(self, seconds: int) -> None:
        self._log.info(self._ends, attempts=self._attempts, seconds=seconds)
        self._attempts = 0
        self._calm = None
