"""Events of the runtime in the database, for people and for webhooks.

Triggers of the database make events of changes to runs, nodes, replicas and federations. This
module adds events that no row shows.
"""

from collections.abc import Sequence

from flower_nats.model.event import ROOM_FOR_DETAILS, Event
from flower_nats.store.connection import Database, Session, Transaction, storable
from flower_nats.store.queries import load

_SQL = load("runtime_events")

KEEP_DAYS = 90
"""Days for which an event is kept."""

KEEP_MOST = 100_000
"""The most events that are kept, about 20 MB. A node that comes and goes every second cannot exceed
it."""


async def note(
    database: Database,
    kind: str,
    *,
    subject: str = "",
    name: str = "",
    details: str = "",
    age: float = 0.0,
    after: str | None = None,
    within: float | None = None,
) -> bool:
    """Note that something has happened `age` seconds ago; return whether it was news.

    If several superlinks see the same, the first one notes it: an event is no news if the last
    event of its `subject` is later, or is of the same kind and, with `within`, not older than that
    many seconds. With `after`, it is news only if the last event of the subject is of that kind.
    Without a subject everything is news.
    """

    async def add(transaction: Transaction) -> bool:
        if subject:
            await transaction.fetch_one(_SQL["lock_subject"], subject=subject)
        row = await transaction.fetch_one(
            _SQL["note"],
            kind=kind,
            subject=subject,
            name=storable(name),
            details=storable(details[:ROOM_FOR_DETAILS]),
            age=float(age),
            after=after,
            within=within,
        )
        return row is not None

    return await database.transaction(add)


class RuntimeEvents:
    """The events that are kept."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def newest(
        self,
        limit: int,
        skip: int = 0,
        *,
        kinds: Sequence[str] | None = None,
        federation: str | None = None,
        seen_by: str | None = None,
    ) -> list[Event]:
        """Return the newest events after the first `skip`: of some kinds, of a federation, or all.

        `seen_by` is an account, which sees only events of its federations and nodes.
        """
        rows = await self._session.fetch_all(
            _SQL["newest"],
            kinds=None if kinds is None else list(kinds),
            federation=federation,
            seen_by=seen_by,
            limit=limit,
            skip=skip,
        )
        return [Event(**row) for row in rows]

    async def trim(self) -> int:
        """Remove old events, and those above the limit; return how many."""
        return await self._session.execute(_SQL["trim"], days=KEEP_DAYS, most=KEEP_MOST)
