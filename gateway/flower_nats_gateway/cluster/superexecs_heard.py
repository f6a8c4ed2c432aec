"""Which SuperExecs have called lately, those that were refused among them.

A run whose SuperExec does not know the secret stays pending, and the SuperExec's own log is on
another machine. So gateways report the SuperExecs that they hear to superlinks, and `flower-nats
status` shows them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flower_nats_gateway.calls.call import Call

KEPT_SECONDS = 60.0
"""How long a SuperExec counts that is not heard again: a call of its own may be held for 50 s."""

_MOST = 100
"""Most SuperExecs that are reported: strangers can be refused from many addresses."""


@dataclass(frozen=True)
class _Superexec:
    address: str
    version: str
    host: str
    """The host whose `up` or superlink started it; empty if neither did."""
    refused: str
    """Why its last call was refused, empty if it was not."""


class SuperexecsHeard:
    """The SuperExecs that this gateway has heard."""

    def __init__(self) -> None:
        self._heard: dict[_Superexec, float] = {}

    def note(self, call: Call, *, host: str = "", refused: str = "") -> None:
        """Note a call of a SuperExec."""
        superexec = _Superexec(call.client_address, call.client_version_shown, host, refused)
        self._heard.pop(superexec, None)
        self._heard[superexec] = time.monotonic()
        if len(self._heard) > _MOST:
            del self._heard[next(iter(self._heard))]

    def report(self) -> list[Mapping[str, Any]]:
        """Return those that were heard lately, each with the seconds since then."""
        now = time.monotonic()
        self._heard = {one: at for one, at in self._heard.items() if now - at < KEPT_SECONDS}
        return [
            {
                "address": one.address,
                "version": one.version,
                "host": one.host,
                "refused": one.refused,
                "seconds": round(now - at, 1),
            }
            for one, at in self._heard.items()
        ]
