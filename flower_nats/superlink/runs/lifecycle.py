"""The effects of a run's change: all who wait hear of it, and a finished run is cleared."""

import asyncio
from collections.abc import Callable

from flower_nats.broker.hints import Hints
from flower_nats.broker.mailbox import Mailbox
from flower_nats.logs import get_logger
from flower_nats.model.errors import ApiError
from flower_nats.model.task import Finished

log = get_logger(__name__)

_CLEAR_SECONDS = 2.0
"""Seconds that the caller that ended a run waits for the broker. Housekeeping does the rest."""


class Lifecycle:
    """Announces changes after they are committed. A lost announcement only delays."""

    def __init__(self, hints: Hints, mailbox: Mailbox, on_run_end: Callable[[int], None]) -> None:
        """`on_run_end` is called for each run that has ended here."""
        self._on_run_end = on_run_end
        self._hints = hints
        self._mailbox = mailbox

    async def task_pending(self, run_id: int) -> None:
        """A task waits for a SuperExec: it is new, or its claim has run out."""
        await self._hints.run_changed(run_id)
        await self._hints.tasks_pending()

    async def run_changed(self, run_id: int) -> None:
        """A task of a run was claimed or started."""
        await self._hints.run_changed(run_id)

    async def task_finished(self, finished: Finished) -> None:
        """A task has finished, and perhaps its run with it."""
        await self._hints.run_changed(finished.run_id)
        if not finished.run_finished:
            return
        # A waiting simulation may have room on a host now.
        await self._hints.tasks_pending()
        log.info("run_finished", run_id=finished.run_id, how=finished.how, details=finished.details)
        try:
            async with asyncio.timeout(_CLEAR_SECONDS):
                await self._mailbox.end_run(finished.run_id)
        except (ApiError, TimeoutError) as exc:
            log.warning("run_not_cleared_yet", run_id=finished.run_id, reason=str(exc))
        self._on_run_end(finished.run_id)
