"""Numbers in a ServerApp's log, which flwr's strategies write for each round.

Every supported flwr writes the same lines, and so does the older `flwr.server`: see the patterns
below. Everyone who may see a run may read its log, so these numbers need no record of their own.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flower_nats.broker.runlog import RunLogs

TRAIN, EVALUATE, GLOBAL = "aggregated train", "aggregated evaluate", "global evaluation"
"""The sources of numbers: replies to train and to evaluate, and the ServerApp's own evaluation."""

Name = tuple[str, str]
"""One of these sources, and the app's name of the number."""

_KEPT = 16
"""Runs with remembered numbers, so that a page that is shown again reads only new lines."""

_MOST_NUMBERS = 20_000
"""Numbers of a run that are kept: a page of a hundred numbers and two hundred rounds."""

A_LOOK, AN_EXPORT = 2.0, 6.0
"""Seconds that one answer may read. A page reads the rest of a longer log later."""

_PIECE = 1024 * 1024
"""Bytes of a log that are read at a time."""

_LONGEST_LINE = 64 * 1024
"""Characters of an incomplete line."""

_SIGNS = (
    *(b"[ROUND ", b"MetricRecord: {", b"evaluation results: {", b"_train: ", b"_evaluate: "),
    # The older `flower.server`.
    *(b"fit progress: (", b"initial parameters (loss"),
)
"""A quick first check, which most lines fail."""

_LINE = re.compile(
    r"\[ROUND (?P<round>\d{1,9})(?:/\d{1,9})?\]"
    r"|(?:configure|aggregate)_(?P<step>train|evaluate): "
    r"|Aggregated MetricRecord: (?P<aggregated>\{.*)"
    r"|Initial global evaluation results: (?P<initial>\{.*)"
    r"|MetricRecord: (?P<evaluated>\{.*)"
    r"|fit progress: \((?P<at>\d{1,9}), (?P<loss>[^,]{1,64}), (?P<others>\{.*)"
    r"|initial parameters \(loss, other metrics\): (?P<first_loss>[^,]{1,64}), (?P<first>\{.*)"
)

_FIGURE = r"(?:np\.\w{1,20}\()?(-?(?:\d[\d.]{0,40}(?:e[+-]?\d{1,4})?|nan|inf))\)?"
_ONE = re.compile(_FIGURE)
_PAIR = re.compile(rf"""(?:'([^'\n]{{1,200}})'|"([^"\n]{{1,200}})"): {_FIGURE}(?=[,}}])""")
"""A name and its number, as Python writes them. Lists of numbers do not match."""


@dataclass
class Logged:
    """The numbers of a run, by name and round. None stands for a number that is not finite."""

    numbers: dict[Name, dict[int, float | None]] = field(default_factory=dict)
    is_whole: bool = False
    """Whether the log was read to its end."""
    _position: int = 0
    _unfinished: bytes = b""
    _round: int = 0
    _step: str = TRAIN
    _taken: int = 0

    async def read_on(self, logs: RunLogs, run_id: int, seconds: float) -> None:
        """Read the new part of the log, as far as the time allows."""
        until = time.monotonic() + seconds
        self.is_whole = False
        while not self.is_whole and time.monotonic() < until:
            records = await logs.records(run_id, self._position, _PIECE)
            if not records:
                self.is_whole = True
                return
            self._position = records[-1].sequence
            await asyncio.to_thread(self.take, b"".join(one.data for one in records))

    def take(self, data: bytes) -> None:
        """Take the numbers from a further part of the log."""
        whole, end, rest = (self._unfinished + data).rpartition(b"\n")
        self._unfinished = rest[-_LONGEST_LINE:]
        if end and any(sign in whole for sign in _SIGNS):
            for line in whole.decode("utf-8", "replace").split("\n"):
                if found := _LINE.search(line):
                    self._take_line(found.groupdict())

    def _take_line(self, found: Mapping[str, str | None]) -> None:
        if found["round"]:
            self._round, self._step = int(found["round"]), TRAIN
        elif found["step"]:
            self._step = EVALUATE if found["step"] == "evaluate" else TRAIN
        elif found["aggregated"]:
            self._note(self._step, self._round, _pairs(found["aggregated"]))
        elif found["evaluated"]:
            self._note(GLOBAL, self._round, _pairs(found["evaluated"]))
        elif found["initial"]:
            self._note(GLOBAL, 0, _pairs(found["initial"]))
        elif found["others"]:
            at = int(found["at"] or 0)
            self._note(GLOBAL, at, [*_loss(found["loss"]), *_pairs(found["others"])])
        elif found["first"]:
            self._note(GLOBAL, 0, [*_loss(found["first_loss"]), *_pairs(found["first"])])

    def _note(self, kind: str, at: int, pairs: Sequence[tuple[str, float | None]]) -> None:
        for name, value in pairs[: max(0, _MOST_NUMBERS - self._taken)]:
            self.numbers.setdefault((kind, name), {})[at] = value
            self._taken += 1

    def over_rounds(self, wanted: Name, columns: int) -> dict[str, Any]:
        """Return a number over its newest rounds, in the form of `number_over_rounds`."""
        found = self.numbers[wanted]
        rounds = sorted(found)[-columns:]
        values = [found[one] for one in rounds]
        return {
            "rounds": [str(one) for one in rounds],
            "rounds_in_all": len(found),
            "mean": values,
            "is_weighted": False,
            "count": [1] * len(rounds),
            **dict.fromkeys(("least", "low", "middle", "high", "most"), [None] * len(rounds)),
            "by_node": {},
            "nodes_in_all": 0,
        }

    def rows(self) -> Iterator[tuple[str, int, dict[str, float | None]]]:
        """Return all numbers: the source, the round, and their numbers by name."""
        by_round: dict[tuple[str, int], dict[str, float | None]] = {}
        for (kind, name), values in self.numbers.items():
            for at, value in values.items():
                by_round.setdefault((kind, at), {})[name] = value
        for (kind, at), metrics in sorted(by_round.items(), key=lambda one: one[0]):
            yield kind, at, metrics


class LoggedMetrics:
    """Reads numbers from logs, and remembers them."""

    def __init__(self, logs: RunLogs) -> None:
        self._logs = logs
        self._kept: dict[int, Logged] = {}
        # Reading logs takes much of a core. Other calls must not wait for many pages at once.
        self._turn = asyncio.Semaphore(1)

    async def of(self, run_id: int, seconds: float = A_LOOK) -> Logged:
        """Return the numbers in a run's log. Raises `Unavailable`."""
        async with self._turn:
            logged = self._kept.pop(run_id, None) or Logged()
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[run_id] = logged
            await logged.read_on(self._logs, run_id, seconds)
            return logged


def _pairs(record: str) -> list[tuple[str, float | None]]:
    return [(one or other, _finite(figure)) for one, other, figure in _PAIR.findall(record)]


def _loss(text: str | None) -> list[tuple[str, float | None]]:
    found = _ONE.fullmatch(text or "")
    return [("loss", _finite(found[1]))] if found else []


def _finite(figure: str) -> float | None:
    try:
        value = float(figure)
    except ValueError:
        # "1.2.3": Python writes no such number.
        return None
    return value if abs(value) < float("inf") else None
