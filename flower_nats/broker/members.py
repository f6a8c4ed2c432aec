"""Which superlinks are awake, so that requests avoid a stopped one.

NATS also delivers the requests of a queue group to a superlink that is stopped (SIGSTOP, a paused
machine). Superlinks give a sign of life twice a second, by hints. A stopped one gives none.
"""

import random
import time
from collections.abc import Collection

PULSE = 0.4
"""Seconds between two signs of life."""

_AWAKE = 0.55
"""Seconds after its last sign of life for which a superlink counts as awake."""

_SILENT_AFTER = 1.5
"""Seconds without a sign of life: longer than a busy machine may delay one."""

_GONE_AFTER = 120.0
"""Seconds after which a silent superlink is forgotten. NATS sends nothing to one that has died."""

FAREWELL = b"farewell"
"""The last hint of a superlink or a gateway that leaves."""


class Members:
    """The superlinks that have given signs of life."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def note(self, superlink: str, *, leaves: bool) -> None:
        """Hear of a superlink."""
        now = time.monotonic()
        self._heard = {name: at for name, at in self._heard.items() if now - at < _GONE_AFTER}
        self._heard.pop(superlink, None)
        if not leaves:
            self._heard[superlink] = now

    def to_ask(self) -> str | None:
        """Return the superlink to ask. None, the usual case: all are awake, and NATS chooses."""
        fresh = self._within(_SILENT_AFTER)
        if not fresh or len(fresh) == len(self._heard):
            return None
        return random.choice(fresh)

    def to_ask_again(self, besides: Collection[str] = ()) -> str | None:
        """Return the superlink for the next try of a call; None if NATS chooses one.

        Superlinks in `besides` are not asked.
        """
        awake = self._within(_AWAKE) or self._within(_SILENT_AFTER)[-1:]
        awake = [name for name in awake if name not in besides]
        return random.choice(awake) if awake else None

    def _within(self, seconds: float) -> list[str]:
        """Return the superlinks heard in the last `seconds`, the last heard at the end."""
        now = time.monotonic()
        return [name for name, at in self._heard.items() if now - at < seconds]
