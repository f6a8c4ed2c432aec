"""How long each fault was felt: what clients' calls say of it."""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.chaos.kills import Fault
from tests.harness.wire import Made

WINDOW = 5.0
"""Seconds after a kill in which silence is looked for."""

PROMPT = 1.0
"""Seconds within which a call that no kill holds up is answered."""


@dataclass(frozen=True)
class Recovery:
    """What one kill did to the clients. Times are in seconds.

    Every call of a client is charged to one kill, the last one before it had waited for a second:
    what takes longer than that was held up by what came before.
    """

    fault: Fault
    longest_wait: float
    """From the kill, or from the call's begin if that was later, until it was answered, of the call
    that waited longest; with all tries of its client and the pauses between them."""

    slowest: Made | None
    """That call."""

    silence: float
    """The longest time soon after the kill in which no call at all was answered."""


def recoveries(faults: Sequence[Fault], calls: Sequence[Made]) -> list[Recovery]:
    """Look at every fault; calls are those that are answered at once where all is well."""
    kills = [fault.at for fault in faults]
    charged: list[list[Made]] = [[] for _ in faults]
    for call in calls:
        last = bisect.bisect_right(kills, min(call.began + PROMPT, call.ended)) - 1
        if last >= 0:
            charged[last].append(call)
    answers = sorted(call.ended for call in calls if call.answered)
    return [
        _recovery(fault, end, mine, answers)
        for fault, end, mine in zip(faults, _ends(kills), charged, strict=True)
    ]


def _ends(kills: Sequence[float]) -> list[float]:
    """When the silence after each kill is no longer its own."""
    following = [*kills[1:], *(kill + WINDOW for kill in kills[-1:])]
    return [min(later, kill + WINDOW) for kill, later in zip(kills, following, strict=True)]


def _recovery(
    fault: Fault, end: float, calls: Sequence[Made], answers: Sequence[float]
) -> Recovery:
    def wait(call: Made) -> float:
        return call.ended - max(call.began, fault.at)

    slowest = max(calls, key=wait, default=None)
    heard = answers[bisect.bisect_left(answers, fault.at) : bisect.bisect_left(answers, end)]
    gaps = (later - sooner for sooner, later in itertools.pairwise([fault.at, *heard, end]))
    return Recovery(fault, wait(slowest) if slowest else 0.0, slowest, max(gaps))


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
