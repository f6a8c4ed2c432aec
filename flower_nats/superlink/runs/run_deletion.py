"""Deletion of finished runs with all their data: by an operator, or by age."""

from collections.abc import Mapping
from typing import Any

from flower_nats.broker.hints import Hints
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.runlog import RunLogs
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.states import Status
from flower_nats.store.apps import Apps
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.fabs import Fabs
from flower_nats.store.idempotency import once
from flower_nats.store.runs import LockedRun, Runs
from flower_nats.store.series import SeriesStore
from flower_nats.superlink.codecs import InternalHandler

log = get_logger(__name__)


class RunDeletion:
    """Serves the deletion of runs."""

    def __init__(self, database: Database, mailbox: Mailbox, logs: RunLogs, hints: Hints) -> None:
        self._database = database
        self._mailbox = mailbox
        self._logs = logs
        self._hints = hints

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return {"DeleteRun": self.delete_run}

    async def delete_run(self, question: Mapping[str, Any], caller: Caller) -> Mapping[str, Any]:
        """{run_id} -> {}: delete a finished run, its log, its tasks and data only it needs."""
        await self.delete(question["run_id"], caller.request_id)
        return {}

    async def delete(self, run_id: int, request_id: str) -> None:
        """Delete a run, once per request. Raises `ApiError` for an unfinished or unknown run."""

        async def delete(transaction: Transaction) -> bytes:
            await self._delete(transaction, run_id)
            return b""

        # The broker's data is removed before the run's rows, so that after a crash in between the
        # run can be deleted again. It is removed once more after them, because a log line may have
        # been on its way.
        await self._database.transaction(lambda session: _find(session, run_id, gone=True))
        await self._clear(run_id)
        await once(self._database, request_id, delete)
        await self._clear(run_id)
        await self._hints.run_changed(run_id)
        log.info("run_deleted", run_id=run_id)

    async def _delete(self, transaction: Transaction, run_id: int) -> None:
        run = await _find(transaction, run_id)
        assert run is not None
        await Runs(transaction).delete(run_id)
        await SeriesStore(transaction).drop_empty(run.series_id)
        await Apps(transaction).leave_fab(run.fab_hash)
        await Fabs(transaction).drop_unused(run.fab_hash)

    async def _clear(self, run_id: int) -> None:
        await self._mailbox.end_run(run_id)
        await self._logs.remove(run_id)


async def _find(transaction: Transaction, run_id: int, *, gone: bool = False) -> LockedRun | None:
    """Return a run that may be deleted; None if it is gone and `gone` allows that."""
    run = await Runs(transaction).lock_to_delete(run_id)
    if run is None and not gone:
        raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"There is no run {run_id}.")
    if run is not None and not run.is_over:
        if run.status == Status.FINISHED:
            remedy = "finished only just now. Remedy: try again in ten seconds"
        else:
            remedy = f"is {run.status}. Remedy: end it with `flwr stop {run_id}`, then delete it"
        raise ApiError(ErrorCode.FORBIDDEN_ACTION, f"Run {run_id} {remedy}.")
    return run
