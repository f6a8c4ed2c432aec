"""Removing the logs of runs that ended long ago: nothing else bounds what logs come to."""

from flower_nats.broker.runlog import RunLogs
from flower_nats.logs import get_logger
from flower_nats.store.runs import Runs

log = get_logger(__name__)


class LogRetention:
    """Removes logs, pass by pass. Replicas that do it at once do no harm."""

    def __init__(self, runs: Runs, logs: RunLogs, days: int) -> None:
        self._runs = runs
        self._logs = logs
        self._days = days
        self._notice = (
            f"[flower-nats] The log of this run was removed: it ended more than {days} days ago.\n"
        )

    async def remove_logs(self) -> None:
        """Make one pass. Raises `Unavailable` if a server is out of reach."""
        for run_id in await self._runs.with_old_logs(self._days):
            await self._logs.replace(run_id, self._notice)
            # Noted when it is done: whoever dies before this leaves it to be done again.
            await self._runs.mark_log_removed(run_id)
            log.info("log_removed", run_id=run_id)
