"""How long each fault held up the clients' calls."""

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
"""Seconds after a kill in which the silence is measured."""

PROMPT = 1.0
"""A call that no kill holds up is answered within these seconds."""


@dataclass(frozen=True)
class Recovery:
    """The effect of one kill on the clients. Times are in seconds.

    Every call of a client is charged to one kill, the last one before the call had waited a second:
    a call that takes longer was held up by an earlier event. But if another NATS server is killed
    while the call still waits, the rest of the wait is charged to that kill, because the election
    that the call waits for begins anew.
    """

    fault: Fault
    longest_wait: float
    """The longest wait of a call for this kill, with all tries and the pauses between them. It
    begins with the kill, or with the call if that was later. It ends with the answer, or with the
    next kill that the call is charged to."""

    slowest: Made | None
    """The call with the longest wait."""

    silence: float
    """The longest time soon after the kill without an answer to any call."""


def recoveries(faults: Sequence[Fault], calls: Sequence[Made]) -> list[Recovery]:
    """Return the effect of every fault on calls that are answered at once without faults."""
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
    """Return the longest wait of a call in seconds, whatever was killed meanwhile."""
    kills = [fault.at for fault in faults]
    waits = (sum(seconds for _, seconds in _shares(faults, kills, call)) for call in calls)
    return max(waits, default=0.0)


class _Share(NamedTuple):
    """The part of a call's wait that is charged to one kill."""

    seconds: float
    call: Made | None


def _shares(
    faults: Sequence[Fault], kills: Sequence[float], call: Made
) -> Iterator[tuple[int, float]]:
    """Yield the numbers of the kills that a call is charged to, each with its seconds."""
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
    """Return the end of the time in which silence counts for each kill."""
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
    """The median and the worst of some times."""

    median: float
    worst: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Sum up values; zeros if there are none."""
        found = list(values) or [0.0]
        return cls(statistics.median(found), max(found))

    def __str__(self) -> str:
        return f"{self.median:.2f} / {self.worst:.2f} s"
