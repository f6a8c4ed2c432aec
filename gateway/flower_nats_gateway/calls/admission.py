"""Which calls are taken: as many as a gateway can hold, and of one address a share of them.

A call that is not taken is answered at once, before anything is done for it, with what stock clients
try again after a pause. A call that waits until there is something to say costs memory alone; one that
is being served costs a turn of everything behind the gateway, too. So the two have limits of their own.
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
"""Calls that are being served at once. A gateway serves some thousand a second, so those at the end of
the queue wait for about as long as a client that comes again would. Beyond it, as many again are taken
from addresses that have few calls: one address could take all places, and keep them for a minute by
bodies that do not come."""

FEW = WORKING // 4
"""Calls that an address with few has at most."""

HELD = 16_384
"""Calls that wait at once. Each takes some 20 KB."""

_SAY_EVERY = 60.0
"""Seconds between two lines in the log about calls that were not taken."""


class Admission:
    """Says of each call whether it is taken."""

    def __init__(self, in_hand: CallsInHand, held: Callable[[], int], *, per_host: int = 0) -> None:
        """`held` tells how many calls wait; `per_host` is how many one address may have, 0: any."""
        self._in_hand = in_hand
        self._held = held
        self._per_host = per_host
        self._turned_away = {"working": 0, "held": 0, "peer": 0}
        self._said = float("-inf")

    def check(self, method: Method, host: str) -> None:
        """Raise `ApiError` (OVERLOADED) if there is no room for a call that is counted already."""
        held = self._held()
        working, of_host = self._in_hand.count - held, self._in_hand.count_of(host)
        if working > WORKING and (of_host > FEW or working > 2 * WORKING):
            self._turn_away("working", f"{working} calls are being served")
        # Without room for those that wait, the short ones are still served: nodes stay online by them.
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
