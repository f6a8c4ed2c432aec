"""Serves `flower-nats down` and the end of `flower-nats up`: no run ends without a reason."""

from collections.abc import Mapping
from typing import Any

from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.states import CLOSED_SECONDS, Status, SubStatus
from flower_nats.store.connection import Database
from flower_nats.store.leases import Leases
from flower_nats.store.runs import Runs
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.convert import iso
from flower_nats.superlink.runs.lifecycle import Lifecycle

log = get_logger(__name__)

Map = Mapping[str, Any]

_CLOSED = "closed to new runs"
"""The lease of the command that waits for the end of all runs."""

_REFUSED = (
    "This runtime is shutting down: `flower-nats down --wait` lets current runs finish and "
    "refuses new ones. Start the run again when the runtime is back."
)


class ShutdownApi:
    """Serves `flower-nats down`."""

    def __init__(self, database: Database, lifecycle: Lifecycle) -> None:
        self._runs = Runs(database)
        self._tasks = Tasks(database)
        self._leases = Leases(database)
        self._lifecycle = lifecycle

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC."""
        return {
            "UnfinishedRuns": self.unfinished_runs,
            "EndRuns": self.end_runs,
            "CloseToRuns": self.close_to_runs,
        }

    async def unfinished_runs(self, question: Map, caller: Caller) -> Map:
        """{} -> {runs: [{run_id, app, status, since}, …]}, the oldest first."""
        return {
            "runs": [
                {
                    "run_id": str(run.run_id),
                    "app": f"{run.fab_id} {run.fab_version}",
                    "status": str(run.status),
                    "since": iso(run.pending_at),
                }
                for run in await self._runs.unfinished()
            ]
        }

    async def end_runs(self, question: Map, caller: Caller) -> Map:
        """{reason} -> {ended: [run_id, …]}: fail runs whose ServerApp runs; keep others."""
        ended = []
        for run in await self._runs.unfinished():
            if run.status is not Status.RUNNING:
                continue
            finished = await self._tasks.finish(
                run.primary_task_id, SubStatus.FAILED, question["reason"]
            )
            if finished is not None:
                log.warning("run_ended_with_runtime", run_id=run.run_id)
                await self._lifecycle.task_finished(finished)
                ended.append(str(run.run_id))
        return {"ended": ended}

    async def close_to_runs(self, question: Map, caller: Caller) -> Map:
        """{holder} -> {}: refuse new runs for the next seconds; the caller repeats this."""
        await self._leases.try_lease(_CLOSED, question["holder"], CLOSED_SECONDS)
        return {}


async def check_open(database: Database) -> None:
    """Raise `ApiError` (FORBIDDEN_ACTION) while the runtime waits for its runs to end."""
    if await Leases(database).is_held(_CLOSED):
        raise ApiError(ErrorCode.FORBIDDEN_ACTION, "closed to new runs", _REFUSED)
