"""Removal of the logs of runs that ended long ago. Nothing else limits the size of logs."""

from flower_nats.broker.runlog import RunLogs
from flower_nats.logs import get_logger
from flower_nats.store.connection import Database
from flower_nats.store.runs import Runs
from flower_nats.store.runtime_events import note

log = get_logger(__name__)


class LogRetention:
    """Removes logs, pass by pass. Two replicas at once do no harm."""

    def __init__(self, database: Database, logs: RunLogs, days: int) -> None:
        self._database = database
        self._runs = Runs(database)
        self._logs = logs
        self._days = days
        self._notice = (
            f"[flower-nats] The log of this run was removed: it ended more than {days} days ago.\n"
        )

    async def remove_logs(self) -> None:
        """Make one pass. Raises `Unavailable` if a server is out of reach."""
        removed = await self._runs.with_old_logs(self._days)
        for run_id in removed:
            await self._logs.replace(run_id, self._notice)
            # Noted after the removal: if this superlink dies before, another one repeats the
            # removal.
            await self._runs.mark_log_removed(run_id)
            log.info("log_removed", run_id=run_id)
        if removed:
            text = f"Logs of runs that ended more than {self._days} days ago: {len(removed)}."
            await note(self._database, "housekeeping", details=text)
