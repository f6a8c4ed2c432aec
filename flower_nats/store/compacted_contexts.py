"""Summaries that agents keep of their series, in the database."""

from dataclasses import dataclass
from datetime import datetime

from flower_nats.store.connection import Session, storable
from flower_nats.store.queries import load

_SQL = load("compacted_contexts")


@dataclass(frozen=True)
class CompactedContext:
    """A summary of a series' events, up to one of them."""

    context_id: int
    """Ids rise."""
    series_id: int
    through_event_id: int
    """The last event in the summary."""
    text: str
    token_count: int
    created_at: datetime


class CompactedContexts:
    """The summaries of the series."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def put(self, series_id: int, through_event_id: int, text: str, token_count: int) -> bool:
        """Store a summary; False if there is already one up to that event."""
        row = await self._session.fetch_one(
            _SQL["put"],
            series_id=series_id,
            through_event_id=through_event_id,
            text=storable(text),
            token_count=token_count,
        )
        return row is not None

    async def of(
        self, series_id: int, limit: int, before: int | None = None
    ) -> list[CompactedContext]:
        """Return at most `limit` summaries of a series before `before`, newest first."""
        rows = await self._session.fetch_all(
            _SQL["list"], series_id=series_id, limit=limit, before=before
        )
        return [CompactedContext(**row) for row in rows]
