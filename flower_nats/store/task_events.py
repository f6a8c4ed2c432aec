"""Events that tasks report about a run, in the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flower_nats.store.connection import Session, storable
from flower_nats.store.queries import load

_SQL = load("events")


@dataclass(frozen=True)
class Event:
    """An event that a task has reported."""

    event_id: int
    """Ids rise within a run."""
    run_id: int
    task_id: int
    created_at: datetime
    event: str
    data: str
    """A JSON object."""


class Events:
    """The events that tasks have reported."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, run_id: int, task_id: int, events: Sequence[tuple[str, str]]) -> None:
        """Store events, each a name and a JSON object, in this order."""
        await self._session.execute(
            _SQL["add"],
            run_id=run_id,
            task_id=task_id,
            events=[storable(event) for event, _ in events],
            data=[storable(data) for _, data in events],
        )

    async def after(
        self, run_id: int, event_id: int, limit: int, *, primary_only: bool = False
    ) -> list[Event]:
        """Return at most `limit` events of a run after `event_id`, oldest first.

        `primary_only`: only those of the primary task of the run.
        """
        rows = await self._session.fetch_all(
            _SQL["after"], run_id=run_id, after=event_id, limit=limit, primary_only=primary_only
        )
        return [Event(**row) for row in rows]

    async def of_series(
        self,
        series_id: int,
        *,
        after: int = 0,
        before: int | None = None,
        names: Sequence[str] = (),
        last: int | None = None,
    ) -> list[Event]:
        """Return the events of the primary tasks of a series' runs, oldest first.

        They are between two event ids, have these names (none: any), and may be only the `last`
        ones.
        """
        rows = await self._session.fetch_all(
            _SQL["of_series"],
            series_id=series_id,
            after=after,
            before=before,
            names=list(names) or None,
            last=last,
        )
        return [Event(**row) for row in rows]
