"""Runs in the database."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from flower_nats.model.ids import new_id
from flower_nats.model.run import NewRun, Run
from flower_nats.model.states import Status
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("runs")

_LONGEST_RUNTIME = 1e9
"""The most seconds of computing that one report may claim: thirty years."""

_FIELDS = tuple(Run.__dataclass_fields__)


@dataclass(frozen=True)
class RunUsage:
    """What a run has used since the last report."""

    run_id: int
    bytes_sent: int
    bytes_recv: int
    clientapp_runtime: float
    """Seconds."""


@dataclass(frozen=True)
class RunSearch:
    """A search for runs; None for any."""

    status: str | None = None
    unfinished: bool = False
    sub_status: str | None = None
    federation: str | None = None
    seen_by: str | None = None
    """An account of its federation."""
    text: str | None = None
    """A text in the app's name or the run's details, in any case of letters."""


@dataclass(frozen=True)
class LockedRun:
    """A run that is about to be deleted."""

    series_id: int
    fab_hash: str
    status: str
    is_over: bool
    """Whether it has finished and has no data in the broker."""


class Runs:
    """The runs of this runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, run_id: int, series_id: int, new: NewRun) -> None:
        """Store a run and its primary task, which then waits for a SuperExec."""
        await self._session.execute(
            _SQL["create"],
            run_id=run_id,
            series_id=series_id,
            task_id=new_id(),
            fab_id=new.fab_id,
            fab_version=new.fab_version,
            fab_hash=new.fab_hash,
            override_config=new.override_config,
            federation=new.federation,
            account_id=new.account_id,
            account_name=new.account_name,
            primary_task_type=new.primary_task_type,
            user_prompt=storable(new.user_prompt),
            simulation_config=new.simulation_config,
        )

    async def get(self, run_id: int) -> Run | None:
        """Return a run, None if there is none."""
        row = await self._session.fetch_one(_SQL["get"], run_id=run_id)
        return None if row is None else _run(row)

    async def seen_by(
        self, account_id: str | None, limit: int | None = None, skip: int = 0
    ) -> list[Run]:
        """Return the runs of an account's federations, or all, newest first.

        At most `limit` runs after the first `skip`.
        """
        rows = await self._session.fetch_all(
            _SQL["list"], account_id=account_id, limit=limit, skip=skip
        )
        return [_run(row) for row in rows]

    async def in_federation(self, federation: str, limit: int | None = None) -> list[Run]:
        """Return the runs of a federation, newest first, at most `limit` of them."""
        rows = await self._session.fetch_all(
            _SQL["in_federation"], federation=federation, limit=limit
        )
        return [_run(row) for row in rows]

    async def search(self, sought: RunSearch, limit: int, skip: int = 0) -> list[Run]:
        """Return the runs of a search after the first `skip`, newest first."""
        rows = await self._session.fetch_all(
            _SQL["search"], **asdict(sought), limit=limit, skip=skip
        )
        return [_run(row) for row in rows]

    async def federations(self, account_id: str | None) -> list[str]:
        """Return the federations with runs, of an account or of all."""
        rows = await self._session.fetch_all(_SQL["federations"], account_id=account_id)
        return [row["federation"] for row in rows]

    async def of_series(self, series_id: int) -> list[Run]:
        """Return the runs of a series, oldest first."""
        rows = await self._session.fetch_all(_SQL["of_series"], series_id=series_id)
        return [_run(row) for row in rows]

    async def prompt(self, task_id: int) -> tuple[str, float] | None:
        """Return the prompt of a run's agent, and when the agent began (seconds since 1970)."""
        row = await self._session.fetch_one(_SQL["prompt"], task_id=task_id)
        return None if row is None else (row["user_prompt"], row["began_at"])

    async def simulation_config(self, run_id: int) -> bytes | None:
        """Return the stored simulation options of a run; None for a deployment."""
        row = await self._session.fetch_one(_SQL["simulation_config"], run_id=run_id)
        found = None if row is None else row["simulation_config"]
        return None if found is None else bytes(found)

    async def unfinished_in(self, federation: str, account_id: str | None = None) -> list[Run]:
        """Return the runs of a federation, or those of one account in it, that have not finished."""
        rows = await self._session.fetch_all(
            _SQL["unfinished_in"], federation=federation, account_id=account_id
        )
        return [_run(row) for row in rows]

    async def unfinished(self) -> list[Run]:
        """Return the runs that have not finished, the oldest first."""
        return [_run(row) for row in await self._session.fetch_all(_SQL["unfinished"])]

    async def statuses(self, run_ids: Sequence[int]) -> dict[int, str]:
        """Return the status of each of these runs that exists."""
        rows = await self._session.fetch_all(_SQL["statuses"], run_ids=list(run_ids))
        return {row["run_id"]: row["status"] for row in rows}

    async def add_usage(self, usage: Sequence[RunUsage]) -> None:
        """Add to the traffic and the computing time of runs; unknown runs are skipped."""
        await self._session.execute(
            _SQL["add_usage"],
            run_ids=[used.run_id for used in usage],
            sent=[used.bytes_sent for used in usage],
            received=[used.bytes_recv for used in usage],
            runtimes=[_seconds(used.clientapp_runtime) for used in usage],
        )

    async def running(self) -> dict[int, int]:
        """Return the running runs, each with the id of its primary task."""
        rows = await self._session.fetch_all(_SQL["running"])
        return {row["run_id"]: row["primary_task_id"] for row in rows}

    async def unclean(self, settle: float, limit: int = 100) -> list[int]:
        """Return runs finished at least `settle` seconds ago and not yet marked as cleaned."""
        rows = await self._session.fetch_all(_SQL["unclean"], settle=settle, limit=limit)
        return [row["run_id"] for row in rows]

    async def mark_cleaned(self, run_id: int) -> None:
        """Note that a finished run has no data in the broker."""
        await self._session.execute(_SQL["mark_cleaned"], run_id=run_id)

    async def with_old_logs(self, days: int, limit: int = 100) -> list[int]:
        """Return runs that ended more than `days` ago and whose logs were not removed, oldest first."""
        rows = await self._session.fetch_all(_SQL["with_old_logs"], days=days, limit=limit)
        return [row["run_id"] for row in rows]

    async def mark_log_removed(self, run_id: int) -> None:
        """Note that the log of a run was removed."""
        await self._session.execute(_SQL["mark_log_removed"], run_id=run_id)

    async def ended_before(self, days: int, limit: int) -> list[int]:
        """Return the oldest runs that ended more than `days` ago and have no data in the broker."""
        rows = await self._session.fetch_all(_SQL["ended_before"], days=days, limit=limit)
        return [int(row["run_id"]) for row in rows]

    async def lock_to_delete(self, run_id: int) -> LockedRun | None:
        """Return a run to delete, locked; None if there is no such run."""
        row = await self._session.fetch_one(_SQL["lock_to_delete"], run_id=run_id)
        return None if row is None else LockedRun(**row)

    async def delete(self, run_id: int) -> None:
        """Delete a run with its tasks, their events and their messages."""
        await self._session.execute(_SQL["delete"], run_id=run_id)

    async def counts(self) -> dict[str, int]:
        """Return how many runs are in each status."""
        return {
            row["status"]: row["count"] for row in await self._session.fetch_all(_SQL["counts"])
        }


def _seconds(claimed: float) -> float:
    """Return a claimed time within limits: one absurd claim must not spoil a run's sum."""
    return float(claimed) if math.isfinite(claimed) and 0 <= claimed <= _LONGEST_RUNTIME else 0.0


def _run(row: Row) -> Run:
    values = {name: row[name] for name in _FIELDS}
    return Run(**{**values, "status": Status(row["status"])})
