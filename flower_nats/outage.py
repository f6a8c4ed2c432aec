"""A fault that lasts is one line when it begins, one a minute, and one when it is over."""

import time

from structlog.stdlib import BoundLogger

_EVERY = 60.0
"""Seconds between two lines about a fault that lasts."""


class Outage:
    """A server that cannot be used; the log is not filled with each attempt to reach it."""

    def __init__(self, log: BoundLogger, server: str) -> None:
        """`server` begins the names of the events: `database_away`, `database_back`."""
        self._log = log
        self._server = server
        self._since = 0.0
        self._said_at = 0.0
        self._attempts = 0

    @property
    def since(self) -> float | None:
        """Since when it cannot be used, a moment of the monotonic clock; None while it can."""
        return self._since if self._attempts else None

    def failed(self, reason: str) -> None:
        """Note an attempt that has failed."""
        now = time.monotonic()
        if not self._attempts:
            self._since = now
        self._attempts += 1
        if self._attempts == 1 or now - self._said_at >= _EVERY:
            self._said_at = now
            self._log.warning(
                f"{self._server}_away",
                reason=reason,
                attempts=self._attempts,
                seconds=round(now - self._since),
            )

    def worked(self) -> None:
        """Note an attempt that has not."""
        if not self._attempts:
            return
        seconds = round(time.monotonic() - self._since)
        self._log.info(f"{self._server}_back", attempts=self._attempts, seconds=seconds)
        self._attempts = 0
