"""How long each fault was felt: what clients' calls say of it."""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.chaos.kills import Fault
from harness.wire import Made

WINDOW = 5.0
"""Seconds after a kill in which silence is looked for."""

PROMPT = 1.0
"""Seconds within which a call that no kill holds up is answered."""


@dataclass(frozen=True)
class Recovery:
    """What one kill did to the clients. Times are in seconds.

    Every call of a client is charged to one kill, the last one before it had waited for a second:
    what takes longer than that was held up by what came before. But where another NATS server is
    killed while the call still waits, what it waits from then on is charged to that kill: the election
    that it waits for begins anew.
    """

    fault: Fault
    longest_wait: float
    """From the kill, or from the call's begin if that was later, until it was answered, or until the
    next kill that is charged for it, of the call that waited longest so; with all tries of its client
    and the pauses between them."""

    slowest: Made | None
    """That call."""

    silence: float
    """The longest time soon after the kill in which no call at all was answered."""


def recoveries(faults: Sequence[Fault], calls: Sequence[Made]) -> list[Recovery]:
    """Look at every fault; calls are those that are answered at once where all is well."""
    kills = [fault.at for fault in faults]
    charged: list[list[_Share]] = [[] for _ in faults]
    for call in calls:
        for number, seconds in _shares(faults, kills, call):
            charged[number].append(_Share(seconds, call))
    answers = sorted(call.ended for call in calls if call.answered)
    return [
        _recovery(fault, end, mine, answers)
        for fault, end, mine in zip(faults, _ends(kills), charged, strict=True)
    ]


def longest_wait(faults: Sequence[Fault], calls: Iterable[Made]) -> float:
    """Return the seconds that the call waited that waited longest, whatever was killed meanwhile."""
    kills = [fault.at for fault in faults]
    waits = (sum(seconds for _, seconds in _shares(faults, kills, call)) for call in calls)
    return max(waits, default=0.0)


class _Share(NamedTuple):
    """What one kill is charged of a call's wait."""

    seconds: float
    call: Made | None


def _shares(
    faults: Sequence[Fault], kills: Sequence[float], call: Made
) -> Iterator[tuple[int, float]]:
    """Give the kills that are charged for a call, by number, and with how many seconds."""
    first = bisect.bisect_right(kills, min(call.began + PROMPT, call.ended)) - 1
    if first < 0:
        return
    mine = [first]
    if faults[first].kind == "nats":
        later = range(first + 1, bisect.bisect_left(kills, call.ended))
        mine += [number for number in later if faults[number].kind == "nats"]
    ends = [*(kills[number] for number in mine[1:]), call.ended]
    for number, end in zip(mine, ends, strict=True):
        yield number, end - max(call.began, kills[number])


def _ends(kills: Sequence[float]) -> list[float]:
    """When the silence after each kill is no longer its own."""
    following = [*kills[1:], *(kill + WINDOW for kill in kills[-1:])]
    return [min(later, kill + WINDOW) for kill, later in zip(kills, following, strict=True)]


def _recovery(
    fault: Fault, end: float, shares: Sequence[_Share], answers: Sequence[float]
) -> Recovery:
    slowest = max(shares, key=lambda share: share.seconds, default=_Share(0.0, None))
    heard = answers[bisect.bisect_left(answers, fault.at) : bisect.bisect_left(answers, end)]
    gaps = (later - sooner for sooner, later in itertools.pairwise([fault.at, *heard, end]))
    return Recovery(fault, slowest.seconds, slowest.call, max(gaps))


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
