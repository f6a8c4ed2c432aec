"""Run series and the context their runs share, in the database."""

from datetime import datetime

from flower_nats.model.ids import new_id
from flower_nats.model.run import Series
from flower_nats.model.states import Status
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("series")


class SeriesStore:
    """The run series of this runtime. A context is a `Context` of the wire, as bytes."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def begin(self, federation: str, description: str, *, is_agent: bool) -> int:
        """Store a new series without a context, for an agent's runs or others; return its id."""
        series_id = new_id()
        await self._session.execute(
            _SQL["begin"],
            series_id=series_id,
            federation=federation,
            description=storable(description),
            context=b"",
            is_agent=is_agent,
        )
        return series_id

    async def lock(self, series_id: int, federation: str) -> bytes | None:
        """Return the context of a series, locked until the transaction ends; None if unknown."""
        row = await self._session.fetch_one(
            _SQL["lock"], series_id=series_id, federation=federation
        )
        return None if row is None else bytes(row["context"])

    async def go_on(self, series_id: int, context: bytes) -> None:
        """Store the context with which the next run of a series starts."""
        await self._session.execute(_SQL["go_on"], series_id=series_id, context=context)

    async def context(self, series_id: int) -> bytes:
        """Return the context that the runs of a series share; empty if there is no such series."""
        row = await self._session.fetch_one(_SQL["context"], series_id=series_id)
        return b"" if row is None else bytes(row["context"])

    async def context_size(self, series_id: int) -> int:
        """Return the size of that context in bytes."""
        row = await self._session.fetch_one(_SQL["context_size"], series_id=series_id)
        return 0 if row is None else int(row["size"])

    async def keep_context(self, task_id: int, context: bytes) -> None:
        """Store the context that a task has left, if it is the primary task of its run."""
        await self._session.execute(_SQL["keep_context"], task_id=task_id, context=context)

    async def describe(self, series_id: int, description: str) -> None:
        """Set the description of a series."""
        await self._session.execute(
            _SQL["describe"], series_id=series_id, description=storable(description)
        )

    async def drop_empty(self, series_id: int) -> None:
        """Delete a series if it has no run."""
        await self._session.execute(_SQL["drop_empty"], series_id=series_id)

    async def of_run(self, run_id: int) -> int | None:
        """Return the series of a run, None if there is no such run."""
        row = await self._session.fetch_one(_SQL["of_run"], run_id=run_id)
        return None if row is None else int(row["series_id"])

    async def find(
        self,
        *,
        series_id: int | None = None,
        federation: str | None = None,
        account_id: str | None = None,
        is_agent: bool | None = None,
        updated_before: datetime | None = None,
        limit: int | None = None,
    ) -> list[Series]:
        """Return the series that fit every filter given, last updated first.

        `account_id`: those in the federations of an account.
        """
        rows = await self._session.fetch_all(
            _SQL["list"],
            series_id=series_id,
            federation=federation,
            account_id=account_id,
            is_agent=is_agent,
            updated_before=updated_before,
            limit=limit,
        )
        return [_series(row) for row in rows]


def _series(row: Row) -> Series:
    status = row["last_status"]
    return Series(
        **{
            **row,
            "run_ids": tuple(row["run_ids"]),
            "last_status": None if status is None else Status(status),
        }
    )
