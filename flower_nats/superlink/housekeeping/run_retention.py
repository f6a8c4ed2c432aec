"""Deletion of runs that ended long ago, with logs, contexts and apps, if an operator wants it."""

import uuid

from flower_nats.logs import get_logger
from flower_nats.model.audit import DONE, AuditEvent
from flower_nats.model.errors import ApiError
from flower_nats.store.audit import append
from flower_nats.store.connection import Database
from flower_nats.store.runs import Runs
from flower_nats.superlink.runs.run_deletion import RunDeletion

log = get_logger(__name__)

_AT_ONCE = 8
"""Runs of one event, which has no room for more ids."""


class RunRetention:
    """Deletes runs, pass by pass. Two replicas at once do no harm."""

    def __init__(self, database: Database, deletion: RunDeletion, days: int) -> None:
        self._database = database
        self._deletion = deletion
        self._days = days

    async def delete_runs(self) -> None:
        """Make one pass. Raises `Unavailable` if a server is out of reach."""
        while await self._delete_some() == _AT_ONCE:
            pass

    async def _delete_some(self) -> int:
        """Delete the oldest runs; return how many. A batch makes one event."""
        deleted: list[int] = []
        try:
            for run_id in await Runs(self._database).ended_before(self._days, _AT_ONCE):
                try:
                    await self._deletion.delete(run_id, f"run-retention-{uuid.uuid4().hex}")
                except ApiError as exc:
                    # Another process deleted the run at the same time.
                    log.info("run_not_deleted", run_id=run_id, reason=exc.detail)
                else:
                    deleted.append(run_id)
        finally:
            if deleted:
                await self._record(deleted)
        return len(deleted)

    async def _record(self, run_ids: list[int]) -> None:
        runs = ", ".join(map(str, run_ids))
        event = AuditEvent(
            account_id="",
            account_name="(flower-nats)",
            address="",
            action="RunRetention",
            object=f"runs {runs}",
            outcome=DONE,
            request_id="",
        )
        await self._database.transaction(lambda transaction: append(transaction, event))
        log.info("old_runs_deleted", count=len(run_ids), older_than_days=self._days)
