"""Work without a caller: liveness, leases, clearing up.

Each piece is leased for `LEASE_SECONDS`, and the lease is renewed early, so that one replica at a
time does the piece. Other replicas try for the lease at least every `_CLAIM_EVERY` seconds: one of
them takes over within 15 s of the holder's death. Doing a piece twice does no harm.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flower_nats.broker.hints import Hints
from flower_nats.broker.mailbox import Mailbox
from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError
from flower_nats.model.states import SubStatus
from flower_nats.outage import Outage
from flower_nats.store.accounts import Accounts
from flower_nats.store.connection import Database
from flower_nats.store.downloads import Downloads
from flower_nats.store.idempotency import drop_old_answers
from flower_nats.store.leases import Leases
from flower_nats.store.logins import Logins
from flower_nats.store.nodes import Nodes
from flower_nats.store.nonces import Nonces
from flower_nats.store.quotas import Quotas
from flower_nats.store.replicas import Replicas
from flower_nats.store.runs import Runs
from flower_nats.store.runtime_events import note
from flower_nats.store.task_messages import TaskMessages
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.runs.lifecycle import Lifecycle

log = get_logger(__name__)

LEASE_SECONDS = 10.0
"""Seconds that the lease of a piece lasts after its holder's death."""

_CLAIM_EVERY = 5.0
"""The most seconds between two claims of a piece. Its work may be due less often."""

_AFTER_BUG = 10.0
"""Seconds until the next try of a piece after an unexpected error. By then the lease is over, and a
replica of another version may succeed."""

_DAY = 24 * 3600.0

_SETTLE_SECONDS = 5.0
"""Seconds after its end until a run is cleared for good, when late messages have arrived."""


@dataclass(frozen=True)
class Piece:
    """One kind of housekeeping."""

    name: str
    every: float
    """Seconds between two turns."""
    work: Callable[[], Awaitable[None]]
    is_needed: Callable[[], Awaitable[bool]] | None = None
    """Whether there is work; None for always. Without work, the next turn may be later."""

    async def turn(self) -> bool:
        """Do the work if needed; return whether it was needed."""
        if self.is_needed is not None and not await self.is_needed():
            return False
        await self.work()
        return True


def _in_words(errors: BaseExceptionGroup[BaseException]) -> str:
    """Return the errors' texts, without their exception groups."""
    return "; ".join(
        _in_words(one) if isinstance(one, BaseExceptionGroup) else str(one)
        for one in errors.exceptions
    )


class Housekeeping:
    """Does the pieces that this replica can claim, for as long as it runs."""

    def __init__(self, leases: Leases, holder: str, pieces: Sequence[Piece]) -> None:
        self._leases = leases
        self._holder = holder
        self._pieces = pieces
        # One for all pieces: a server that is away affects most of them.
        self._postponed = Outage(log, "housekeeping_postponed", "housekeeping_goes_on")

    async def run(self) -> None:
        """Run until cancelled; an error in a piece postpones only that piece."""
        # Not a task group: it passes on only the first cancel, which a piece may miss.
        await asyncio.gather(*map(self._repeat, self._pieces))

    async def _repeat(self, piece: Piece) -> None:
        due = 0.0
        held_since = -math.inf
        while True:
            pause = min(piece.every, _CLAIM_EVERY)
            try:
                now = time.monotonic()
                # Not at each turn: otherwise an idle runtime would ask the database for little
                # else.
                if now - held_since > _CLAIM_EVERY - pause / 2:
                    held = await self._leases.try_lease(piece.name, self._holder, LEASE_SECONDS)
                    held_since = now if held else -math.inf
                if held_since > -math.inf and time.monotonic() >= due:
                    if not await piece.turn():
                        pause = _CLAIM_EVERY
                    # A little early, because a sleep may end a moment before its time.
                    due = time.monotonic() + piece.every - pause / 2
                    self._postponed.worked()
            # A piece may use a task group, which raises exception groups.
            except* FlowerNatsError as errors:
                self._postponed.failed(f"{piece.name}: {_in_words(errors)}")
            except* Exception as errors:
                # One unexpected record must not end every replica, one after another.
                log.error("housekeeping_failed", piece=piece.name, exc_info=errors)
                pause = _AFTER_BUG
            await asyncio.sleep(pause)


class MetadataHousekeeping:
    """The pieces about data in the database."""

    def __init__(
        self,
        database: Database,
        lifecycle: Lifecycle,
        mailbox: Mailbox,
        hints: Hints,
        node_retention: int = 0,
    ) -> None:
        """`node_retention`: days after which lists leave out nodes that are offline; 0 for never."""
        self._node_retention = node_retention
        self._database = database
        self._lifecycle = lifecycle
        self._mailbox = mailbox
        self._hints = hints

    def pieces(self) -> list[Piece]:
        """Return every piece."""
        return [
            Piece("nodes", 1.0, self.expire_nodes, Nodes(self._database).any_online),
            Piece("tasks", 1.0, self.expire_tasks, Tasks(self._database).any_unfinished),
            Piece("runs", 2.0, self.clear_runs),
            Piece("overdue runs", 2.0, self.end_overdue, Tasks(self._database).any_unfinished),
            Piece("records", 30.0, self.drop_records),
            Piece("unseen nodes", 60.0, self.forget_nodes),
            *([Piece("old nodes", 60.0, self.unlist_nodes)] if self._node_retention else []),
        ]

    async def expire_nodes(self) -> None:
        """Take nodes offline that were silent for too long."""
        for node_id in await Nodes(self._database).expire():
            log.info("node_silent", node_id=node_id)

    async def forget_nodes(self) -> None:
        """Remove nodes that have registered themselves and are gone for good."""
        forgotten = await Nodes(self._database).forget_unseen()
        if forgotten:
            log.info("nodes_forgotten", count=len(forgotten))
            text = (
                "SuperNodes that registered themselves and were not seen for a week: "
                f"{len(forgotten)}."
            )
            await note(self._database, "housekeeping", details=text)
        for node_id in forgotten:
            await self._hints.node_changed(node_id)

    async def unlist_nodes(self) -> None:
        """Leave nodes that were offline for long out of lists."""
        count = await Nodes(self._database).unlist(self._node_retention * _DAY)
        if count:
            log.info("nodes_unlisted", count=count, days=self._node_retention)
            text = (
                f"SuperNodes left out of lists, not online for {self._node_retention} days: "
                f"{count}. They are listed again when they connect."
            )
            await note(self._database, "housekeeping", details=text)

    async def expire_tasks(self) -> None:
        """Release tasks that did not start in time; fail tasks that were silent for too long."""
        tasks = Tasks(self._database)
        for task_id, run_id in await tasks.release():
            log.info("task_claim_expired", task_id=task_id, run_id=run_id)
            await self._lifecycle.task_pending(run_id)
        for finished in await tasks.expire():
            log.info("task_silent", task_id=finished.task_id, run_id=finished.run_id)
            await self._lifecycle.task_finished(finished)
        for task_id, run_id in await tasks.finish_orphans():
            log.info("task_orphaned", task_id=task_id, run_id=run_id)
            await self._lifecycle.run_changed(run_id)

    async def end_overdue(self) -> None:
        """End runs that have taken longer than the limits of federation and account allow."""
        for run in await Quotas(self._database).overdue():
            finished = await Tasks(self._database).finish(
                run.primary_task_id, SubStatus.FAILED, run.reason()
            )
            if finished is not None:
                log.warning("run_overdue", run_id=finished.run_id, reason=run.reason())
                await self._lifecycle.task_finished(finished)

    async def clear_runs(self) -> None:
        """Remove data of finished runs from the broker, as the cleanup at the end may fail."""
        runs = Runs(self._database)
        for run_id in await runs.unclean(_SETTLE_SECONDS):
            await self._mailbox.end_run(run_id)
            await runs.mark_cleaned(run_id)
            log.info("run_cleared", run_id=run_id)

    async def drop_records(self) -> None:
        """Remove expired rows."""
        await Nonces(self._database).drop_expired()
        await TaskMessages(self._database).drop_expired()
        await Replicas(self._database).drop_gone()
        await Accounts(self._database).drop_expired()
        await Logins(self._database).drop_expired()
        await Downloads(self._database).drop_expired()
        await drop_old_answers(self._database)
