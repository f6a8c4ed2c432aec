"""Creates the broker's streams again if they are gone, and ends the runs that lost messages."""

import asyncio

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.streams import ensure_streams, missing_streams
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, gauge
from flower_nats.model.errors import FlowerNatsError
from flower_nats.model.states import SubStatus
from flower_nats.outage import Outage
from flower_nats.store.connection import Database
from flower_nats.store.runs import Runs
from flower_nats.store.runtime_events import note
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.runs.lifecycle import Lifecycle

log = get_logger(__name__)

LOOK_EVERY = 5.0
"""Seconds between two looks. A stream is gone if two successive looks miss it: a server that starts
may not know a stream for a moment."""

_SAME_LOSS = 60.0
"""Seconds within which two superlinks see the same loss."""

_REASON = (
    "The broker has lost the messages of this run: its streams were deleted, its disk was replaced, or "
    "the runtime was restored from a backup. Start the run again."
)


class StreamKeeper:
    """Makes sure that the streams exist."""

    def __init__(
        self,
        connection: Connection,
        database: Database,
        lifecycle: Lifecycle,
    ) -> None:
        self._connection = connection
        self._database = database
        self._lifecycle = lifecycle
        self._missed: set[str] = set()
        self._unseen = Outage(log, "streams_not_looked_at", "streams_looked_at_again")
        self.lost = 0
        """Streams that this superlink has found missing."""

    async def prepare(self) -> None:
        """Create the streams, at the start of a superlink. Raises `Unavailable`."""
        missing = await missing_streams(self._connection)
        if missing and await Runs(self._database).running():
            await asyncio.sleep(LOOK_EVERY)
            missing &= await missing_streams(self._connection)
            await self._restore(missing)
        else:
            await ensure_streams(self._connection)

    async def run(self) -> None:
        """Look for missing streams, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self._look()
                self._unseen.worked()
            except FlowerNatsError as exc:
                self._unseen.failed(str(exc))

    def metrics(self) -> list[Metric]:
        """Return the same as a number that only rises."""
        meaning = (
            "Streams of the broker that were found missing and made again: messages were lost."
        )
        return [gauge("streams_lost_total", meaning, self.lost)]

    async def _look(self) -> None:
        missing = await missing_streams(self._connection)
        gone, self._missed = missing & self._missed, missing
        if gone:
            await self._restore(gone)
            self._missed = set()

    async def _restore(self, missing: set[str]) -> None:
        """Create the streams again.

        The runs are ended first: after a crash in between the streams are still missing, and another
        replica does both.
        """
        if missing:
            self.lost += len(missing)
            log.error(
                "streams_lost",
                streams=sorted(missing),
                meaning="Their contents are lost. Runs at work end as failed.",
            )
            text = f"Streams of NATS were lost and made again: {', '.join(sorted(missing))}."
            await note(
                self._database, "messages_lost", subject="streams", details=text, within=_SAME_LOSS
            )
        if missing & {subjects.MESSAGES_STREAM, subjects.OBJECTS_STREAM}:
            await self._end_runs()
        await ensure_streams(self._connection)

    async def _end_runs(self) -> None:
        running = await Runs(self._database).running()
        await asyncio.gather(*map(self._end_run, running.items()))

    async def _end_run(self, run: tuple[int, int]) -> None:
        run_id, task_id = run
        finished = await Tasks(self._database).finish(task_id, SubStatus.FAILED, _REASON)
        if finished is not None:
            log.error("run_lost_its_messages", run_id=run_id)
            await self._lifecycle.task_finished(finished)
