"""How long each fault was felt: what clients' calls say of it."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.chaos.kills import Fault
from harness.wire import Made

WINDOW = 5.0
"""Seconds after a kill in which a call that begins is counted as touched by it."""

_PROMPT = 1.0
"""A call that began so many seconds before the next kill, and outlasts it, was held up by that one."""


@dataclass(frozen=True)
class Recovery:
    """What one kill did to the clients. Times are in seconds."""

    fault: Fault
    longest_wait: float
    """From the kill, or from the call's begin if that was later, to the answer of the call that
    waited longest, among all that were on their way at the kill or began in the window after it;
    with all tries of its client and the pauses between them."""

    slowest: Made | None
    """That call."""

    silence: float
    """The longest time in the window in which no call at all was answered."""

    slowest_round: float
    """The whole of the longest round that was under way at the kill, work and polls included."""


def recoveries(
    faults: Sequence[Fault], calls: Sequence[Made], rounds: Sequence[tuple[float, float]]
) -> list[Recovery]:
    """Look at every fault; calls are those that are answered at once where all is well."""
    after = [*(fault.at for fault in faults[1:]), math.inf]
    return [
        _recovery(fault, min(following, fault.at + WINDOW), calls, rounds)
        for fault, following in zip(faults, after, strict=True)
    ]


def _recovery(
    fault: Fault, end: float, calls: Sequence[Made], rounds: Sequence[tuple[float, float]]
) -> Recovery:
    touched = [call for call in calls if _is_touched(call, fault.at, end)]
    slowest = max(touched, key=lambda call: _wait(call, fault.at), default=None)
    answers = sorted(call.ended for call in calls if call.answered and fault.at < call.ended < end)
    return Recovery(
        fault,
        _wait(slowest, fault.at) if slowest else 0.0,
        slowest,
        max(b - a for a, b in itertools.pairwise([fault.at, *answers, end])),
        max((to - since for since, to in rounds if since < fault.at < to), default=0.0),
    )


def _is_touched(call: Made, kill: float, end: float) -> bool:
    if call.ended <= kill or call.began >= end:
        return False
    is_the_next_ones = call.ended > end and call.began > max(kill, end - _PROMPT)
    return not is_the_next_ones


def _wait(call: Made, kill: float) -> float:
    return call.ended - max(call.began, kill)


@dataclass(frozen=True)
class Spread:
    """Median and worst of some seconds."""

    median: float
    worst: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Sum up values; zeros if there are none."""
        found = list(values) or [0.0]
        return cls(statistics.median(found), max(found))

    def __str__(self) -> str:
        return f"{self.median:.2f} / {self.worst:.2f} s"
