"""Tasks in the database: each step in the life of a task is one statement."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from flower_nats.model.ids import new_id
from flower_nats.model.states import (
    CLAIM_SECONDS,
    FAREWELL_SECONDS,
    TASK_SILENCE_SECONDS,
    Status,
    SubStatus,
)
from flower_nats.model.task import Finished, Task, TaskType
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.nodes import ABSENCE, DEAF_AFTER
from flower_nats.store.queries import load

_SQL = load("tasks")

_FIELDS = tuple(Task.__dataclass_fields__)

# Texts that stock clients show for a run (flwr 1.33 `supercore/corestate`, `linkstate`).
_SILENT = "No heartbeat received from the task"
_RUN_STOPPED = "Task stopped because the run was stopped"
_RUN_FINISHED = "Task failed because the run finished"
_RUN_EXPIRED = "Task failed because the run expired"


@dataclass(frozen=True)
class TaskSign:
    """The last sign of life of the process of a task."""

    heard_at: datetime | None
    """When it was heard; None if no process has the task."""
    taken_from: str
    """The address of its SuperExec, empty if unknown."""


@dataclass(frozen=True)
class TakenTask:
    """A task that a SuperExec has taken."""

    task_id: int
    run_id: int
    type: str
    status: str
    taken_by: str | None
    """The host whose `up` or superlink started its SuperExec; empty if neither did."""
    taken_from: str
    """The address of its SuperExec."""
    since: datetime


class Tasks:
    """The tasks of this runtime. A `token` here is a token's hash (`model.ids.token_hash`)."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def pending(self, types: Iterable[str] = TaskType) -> list[Task]:
        """Return the tasks of these types that wait for a SuperExec, oldest first."""
        rows = await self._session.fetch_all(_SQL["pending"], types=[str(one) for one in types])
        return [_task(row) for row in rows]

    async def has_room(self, host: str) -> bool:
        """Return whether the host of a SuperExec may take one more simulation."""
        row = await self._session.fetch_one(_SQL["has_room"], host=host)
        return row is None or row["has_room"] is not False

    async def claim(
        self,
        task_id: int,
        token: bytes,
        gateway: str | None = None,
        host: str = "",
        address: str = "",
    ) -> Task | None:
        """Claim a pending task for `CLAIM_SECONDS`, for the holder of the token, and return it.

        None if the task is not pending, or is a simulation without room on the host. The same
        request may be repeated with the same token: a lost answer must not cost the lease, and a
        late repetition must not cost the token. `address` is the SuperExec's, for people.
        """
        row = await self._session.fetch_one(
            _SQL["claim"],
            task_id=task_id,
            token_hash=token,
            seconds=CLAIM_SECONDS,
            gateway=gateway,
            host=host,
            address=address,
            has_room=await self.has_room(host),
        )
        return None if row is None else _task(row)

    async def acquire(
        self,
        types: Sequence[str],
        fab_hashes: Sequence[str],
        token: bytes,
        gateway: str | None = None,
        host: str = "",
        address: str = "",
    ) -> Task | None:
        """Claim the oldest pending task of one of these types or FABs for the holder of the token.

        None if there is no such task. The same request may be repeated, as with `claim`, also at
        two replicas at once. So this runs in a transaction, in which it waits for its turn.
        """
        await self._session.fetch_one(_SQL["take_turn"], request_id=token.hex())
        row = await self._session.fetch_one(
            _SQL["acquire"],
            types=list(types),
            fab_hashes=list(fab_hashes),
            token_hash=token,
            seconds=CLAIM_SECONDS,
            gateway=gateway,
            host=host,
            address=address,
            has_room=await self.has_room(host),
        )
        return None if row is None else _task(row)

    async def by_token(self, token: bytes) -> Task | None:
        """Return the task of a token, None if there is none.

        The task is unfinished, or has finished itself within the last `FAREWELL_SECONDS`.
        """
        row = await self._session.fetch_one(
            _SQL["by_token"], token_hash=token, farewell=FAREWELL_SECONDS
        )
        return None if row is None else _task(row)

    async def sign(self, task_id: int) -> TaskSign:
        """Return when the process of a task was heard last, and where its SuperExec is."""
        row = await self._session.fetch_one(
            _SQL["sign"], task_id=task_id, claim=CLAIM_SECONDS, silence=TASK_SILENCE_SECONDS
        )
        return TaskSign(None, "") if row is None else TaskSign(**row)

    async def activate(self, task_id: int, token: bytes, gateway: str | None = None) -> Task | None:
        """Start a claimed task, or find it running under the same token; None otherwise."""
        row = await self._session.fetch_one(
            _SQL["activate"],
            task_id=task_id,
            token_hash=token,
            seconds=TASK_SILENCE_SECONDS,
            gateway=gateway,
        )
        return None if row is None else _task(row)

    async def under_way(self) -> list[TakenTask]:
        """Return the tasks that a SuperExec has taken and that are not finished, oldest first."""
        return [TakenTask(**row) for row in await self._session.fetch_all(_SQL["under_way"])]

    async def heartbeat(self, task_id: int, token: bytes, gateway: str | None = None) -> bool:
        """Note that a task lives; False if it is finished or was given to another process."""
        row = await self._session.fetch_one(
            _SQL["heartbeat"],
            task_id=task_id,
            token_hash=token,
            seconds=TASK_SILENCE_SECONDS,
            gateway=gateway,
        )
        return row is not None

    async def finish(
        self, task_id: int, sub_status: SubStatus, details: str, token: bytes | None = None
    ) -> Finished | None:
        """Finish a task and, if it is the primary task, every task of its run.

        None if it is already finished, is not the task of `token`, or would be completed without
        having run.
        """
        stopped = sub_status is SubStatus.STOPPED
        row = await self._session.fetch_one(
            _SQL["finish"],
            task_id=task_id,
            token_hash=token,
            sub_status=str(sub_status),
            details=storable(details),
            others_sub_status=str(SubStatus.STOPPED if stopped else SubStatus.FAILED),
            others_details=_RUN_STOPPED if stopped else _RUN_FINISHED,
        )
        return None if row is None else Finished(**row)

    async def any_unfinished(self) -> bool:
        """Return whether any task could fall silent or be overdue."""
        return await self._session.fetch_one(_SQL["any_unfinished"]) is not None

    async def release(self) -> list[tuple[int, int]]:
        """Make claimed tasks that did not start in time pending again; return them, with runs."""
        rows = await self._session.fetch_all(
            _SQL["release"], deaf_after=DEAF_AFTER, absence=ABSENCE
        )
        return [(row["task_id"], row["run_id"]) for row in rows]

    async def expire(self) -> list[Finished]:
        """Fail running tasks that were silent for too long, and the tasks that depend on them."""
        rows = await self._session.fetch_all(
            _SQL["expire"],
            details=_SILENT,
            others_details=_RUN_EXPIRED,
            deaf_after=DEAF_AFTER,
            absence=ABSENCE,
        )
        return [Finished(**row) for row in rows]

    async def finish_orphans(self) -> list[tuple[int, int]]:
        """Finish tasks created while their run was finishing; return them, with runs."""
        rows = await self._session.fetch_all(_SQL["finish_orphans"], details=_RUN_FINISHED)
        return [(row["task_id"], row["run_id"]) for row in rows]

    async def create(
        self,
        requesting_task_id: int,
        task_type: str,
        *,
        fab_hash: str | None,
        model_ref: str | None,
        connector_ref: str | None,
    ) -> int | None:
        """Store a task in the run of an unfinished task; None if that task is finished."""
        row = await self._session.fetch_one(
            _SQL["create"],
            task_id=new_id(),
            requesting_task_id=requesting_task_id,
            type=task_type,
            fab_hash=fab_hash,
            model_ref=model_ref,
            connector_ref=connector_ref,
        )
        return None if row is None else int(row["task_id"])

    async def add_usage(self, task: tuple[int, int], body: bytes) -> None:
        """Store the usage (a `TaskUsage` of the wire) that a task of a run reports."""
        task_id, run_id = task
        await self._session.execute(_SQL["add_usage"], task_id=task_id, run_id=run_id, body=body)


def _task(row: Row) -> Task:
    values = {name: row[name] for name in _FIELDS}
    return Task(**{**values, "status": Status(row["status"])})
