"""Which calls are accepted: as many as a gateway can hold, and a share of them per address.

A rejected call is answered at once, before any work, with an error that stock clients try again
after a pause. A held call, which waits for something to say, costs only memory. A call that is
being served also costs work behind the gateway. So the two kinds have separate limits.
"""

import time
from collections.abc import Callable

from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire.methods import Method
from flower_nats_gateway.calls.in_hand import CallsInHand

log = get_logger(__name__)

WORKING = 4_096
"""Calls that are being served at once. A gateway serves some thousand a second, so the last ones in
the queue wait about as long as the pause of a client. Beyond this limit, the same number is
accepted from addresses with few calls. Otherwise one address could take all places, and keep them
for a minute with bodies that never come."""

FEW = WORKING // 4
"""The most calls of an address that counts as having few."""

HELD = 16_384
"""Calls that may be held at once. Each takes some 20 KB."""

_SAY_EVERY = 60.0
"""Seconds between two log lines about rejected calls."""


class Admission:
    """Decides whether each call is accepted."""

    def __init__(self, in_hand: CallsInHand, held: Callable[[], int], *, per_host: int = 0) -> None:
        """`held` counts held calls; `per_host` is the limit per address, 0 for none."""
        self._in_hand = in_hand
        self._held = held
        self._per_host = per_host
        self._turned_away = {"working": 0, "held": 0, "peer": 0}
        self._said = float("-inf")

    def check(self, method: Method, host: str) -> None:
        """Raise `ApiError` (OVERLOADED) if there is no room for an already counted call."""
        held = self._held()
        working, of_host = self._in_hand.count - held, self._in_hand.count_of(host)
        if working > WORKING and (of_host > FEW or working > 2 * WORKING):
            self._turn_away("working", f"{working} calls are being served")
        # Without room for held calls, short calls are still served, because they keep nodes online.
        if held >= HELD and (method.held or method.streams):
            self._turn_away("held", f"{HELD} calls wait")
        if host and self._per_host and of_host > self._per_host:
            self._turn_away("peer", f"{self._per_host} calls of {host} are in hand")

    def _turn_away(self, kind: str, reason: str) -> None:
        self._turned_away[kind] += 1
        now = time.monotonic()
        if now - self._said > _SAY_EVERY:
            self._said = now
            log.warning("calls_turned_away", reason=reason)
        raise ApiError(ErrorCode.OVERLOADED, reason)

    def metrics(self) -> list[Metric]:
        """Return the counts."""
        return [
            by_label(
                "calls_turned_away_total",
                "Calls that were not taken as there was no room, by the limit that was reached.",
                "limit",
                {kind: float(count) for kind, count in self._turned_away.items()},
            )
        ]
