"""Durations and numbers of rounds of the runs that this superlink has ended."""

import asyncio
import time
from collections import Counter, deque

from flower_nats.logs import get_logger
from flower_nats.metrics import Durations, Metric, by_label
from flower_nats.model.errors import Unavailable
from flower_nats.store.connection import Database
from flower_nats.store.exchanges import Exchanges
from flower_nats.store.runs import Runs
from flower_nats.superlink.console.rounds import rounds_of

log = get_logger(__name__)

_BOUNDS = (10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0, 604800.0)
"""Seconds: the upper bounds of the buckets for durations of runs, from a trial to a week."""

_TYPES = ("train", "evaluate", "query")
"""The types of messages of flwr. The part after a point is the app's (`train.lora`)."""

_OTHER = "other"
"""The label for all other types, because apps may use any number of types."""

_LATER = 3.0
"""Seconds after a run's end until it is counted: gateways send the history of the last messages
once a second."""

_LOOK_EVERY = 1.0
"""Seconds between two looks for runs to count."""

_MOST = 10_000
"""Runs that may wait to be counted. With more, the oldest are left out."""


class RunFigures:
    """Counts runs as they end."""

    def __init__(self, database: Database) -> None:
        self._runs = Runs(database)
        self._exchanges = Exchanges(database)
        self._ended: deque[tuple[float, int]] = deque(maxlen=_MOST)
        self._seconds: dict[str, Durations] = {}
        self._rounds = Counter(dict.fromkeys((*_TYPES, _OTHER), 0))

    def run_ended(self, run_id: int) -> None:
        """Note that a run has ended."""
        self._ended.append((time.monotonic() + _LATER, run_id))

    async def run(self) -> None:
        """Count the runs that have ended, until cancelled."""
        while True:
            while self._ended and self._ended[0][0] <= time.monotonic():
                await self._count(self._ended.popleft()[1])
            await asyncio.sleep(_LOOK_EVERY)

    async def _count(self, run_id: int) -> None:
        """Count a run. If the database is away, the run is left out."""
        try:
            run = await self._runs.get(run_id)
            sends = await self._exchanges.sends(run_id)
        except Unavailable as exc:
            log.warning("run_not_counted", run_id=run_id, reason=exc.detail)
            return
        if run is None or run.finished_at is None:
            return
        took = (run.finished_at - (run.running_at or run.pending_at)).total_seconds()
        self._seconds.setdefault(run.sub_status, Durations(_BOUNDS)).note(max(0.0, took))
        for message_type, rounds in rounds_of(sends).items():
            kind = message_type.partition(".")[0]
            self._rounds[kind if kind in _TYPES else _OTHER] += len(rounds)

    def metrics(self) -> list[Metric]:
        """Return the counts."""
        meaning = "Rounds of runs that have ended, by type of message."
        rounds = by_label("rounds_total", meaning, "type", self._rounds)
        if not self._seconds:
            return [rounds]
        durations = tuple(({"how": how}, one) for how, one in self._seconds.items())
        return [
            rounds,
            Metric("run_seconds", "Seconds from a run's start to its end.", durations=durations),
        ]
