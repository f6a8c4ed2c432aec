"""How often nodes may register themselves from one address, because each becomes a database row."""

import time
from collections import OrderedDict

from flower_nats.model.errors import ApiError, ErrorCode

AT_ONCE = 5_000
"""Registrations that one address may make at once, for a fleet behind one NAT that starts together.
All clients on this machine, or behind an untrusted balancer, count as one address."""

A_SECOND = 100.0
"""Registrations that one address may make in each second after that."""

_ADDRESSES = 10_000
"""Addresses that are remembered. The one that was quiet for longest is dropped first."""


class RegistrationLimit:
    """Limits the registrations of each address; a refused one may be tried again later."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By address: how many registrations were left, and when."""

    def check(self, host: str) -> None:
        """Count a registration. Raises `ApiError` (OVERLOADED) if it is one too many."""
        now = time.monotonic()
        left, since = self._left.pop(host, (AT_ONCE, now))
        left = min(AT_ONCE, left + (now - since) * A_SECOND)
        self._left[host] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _ADDRESSES:
            self._left.popitem(last=False)
        if left < 1:
            raise ApiError(ErrorCode.OVERLOADED, f"too many nodes register from {host or 'here'}")
