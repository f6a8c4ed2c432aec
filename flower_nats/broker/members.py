"""Which superlinks are awake, so that requests go past one that is stopped.

NATS gives the requests of a queue group to a superlink that is stopped (SIGSTOP, a paused machine) as to
any other. But it gives no signs of life, which the others do twice a second, by hints.
"""

import random
import time
from collections.abc import Collection

PULSE = 0.4
"""Seconds between two signs of life."""

_AWAKE = 0.55
"""Seconds since the last one, within which a superlink is awake for all we know."""

_SILENT_AFTER = 1.5
"""Seconds, more than a busy machine keeps a superlink from giving one."""

_GONE_AFTER = 120.0
"""Seconds after which a silent one is forgotten. One that has died is: NATS asks it no more."""

FAREWELL = b"farewell"
"""The last sign of life of a superlink, or a gateway, that leaves."""


class Members:
    """The superlinks, by their signs of life."""

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
        """Return the superlink to ask. None, the usual case: all answer, and NATS chooses one."""
        fresh = self._within(_SILENT_AFTER)
        if not fresh or len(fresh) == len(self._heard):
            return None
        return random.choice(fresh)

    def to_ask_again(self, besides: Collection[str] = ()) -> str | None:
        """Return the superlink to ask after others did not serve a call. None: NATS chooses one.

        Those named `besides` it are not asked.
        """
        awake = self._within(_AWAKE) or self._within(_SILENT_AFTER)[-1:]
        awake = [name for name in awake if name not in besides]
        return random.choice(awake) if awake else None

    def _within(self, seconds: float) -> list[str]:
        """Return those that were heard in the last `seconds`, the last heard last."""
        now = time.monotonic()
        return [name for name, at in self._heard.items() if now - at < seconds]
