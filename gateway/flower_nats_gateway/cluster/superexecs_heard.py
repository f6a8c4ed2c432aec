"""Which SuperExecs have called lately, including refused ones.

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
"""Seconds for which a SuperExec counts after its last call: a call may be held for 50 s."""

_MOST = 100
"""The most SuperExecs in a report, because refused strangers may have many addresses."""


@dataclass(frozen=True)
class _Superexec:
    address: str
    version: str
    host: str
    """The host whose `up` or superlink started it; empty if neither did."""
    refused: str
    """Why its last call was refused, empty if it was accepted."""


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
        """Return the SuperExecs heard lately, each with the seconds since its last call."""
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
