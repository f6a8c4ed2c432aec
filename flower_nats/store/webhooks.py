"""Webhooks in the database: which events each receives, and which are not yet delivered.

A trigger plans the deliveries of an event in the transaction that adds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flower_nats.model.event import Event
from flower_nats.model.webhook import Webhook
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("webhooks")

PAUSE = 10.0
"""Seconds from the first try to the second. Each later pause is twice as long."""

LONGEST_PAUSE = 3600.0
"""The longest pause in seconds."""

GIVE_UP = 24 * 3600.0
"""Seconds after which a delivery is given up: a receiver may be away for a night."""

_AT_ONCE, _OF_EACH = 40, 5
"""Deliveries in one pass, and for one webhook in a pass, so that a hanging one does not delay
others."""


@dataclass(frozen=True)
class Delivery:
    """An event that is to be sent."""

    webhook_id: int
    url: str
    secret: str
    event: Event


@dataclass(frozen=True)
class Trouble:
    """An event that was not delivered."""

    webhook_id: int
    url: str
    tries: int
    next_at: datetime | None
    """When it is tried again; None if it was given up."""
    error: str
    event: Event


class Webhooks:
    """The webhooks of a runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def all(self) -> list[Webhook]:
        """Return every webhook."""
        return [Webhook(**row) for row in await self._session.fetch_all(_SQL["list"])]

    async def add(
        self, url: str, secret: str, kinds: Sequence[str], federation: str | None, created_by: str
    ) -> int:
        """Store a webhook; return its id."""
        row = await self._session.fetch_one(
            _SQL["add"],
            url=url,
            secret=secret,
            kinds=list(kinds),
            federation=federation,
            created_by=storable(created_by),
        )
        assert row is not None
        return int(row["webhook_id"])

    async def lock(self) -> int:
        """Lock the list of webhooks until the transaction ends; return their number."""
        await self._session.fetch_one(_SQL["lock"])
        row = await self._session.fetch_one(_SQL["count"])
        assert row is not None
        return int(row["count"])

    async def remove(self, webhook_id: int) -> bool:
        """Remove a webhook; return whether there was one."""
        return await self._session.execute(_SQL["remove"], webhook_id=webhook_id) > 0

    async def test(self, webhook_id: int, details: str) -> bool:
        """Send an event to one webhook, whatever its kinds are; return whether there is one."""
        return (
            await self._session.execute(
                _SQL["try"], webhook_id=webhook_id, details=storable(details)
            )
            > 0
        )

    async def claim(self) -> list[Delivery]:
        """Return the deliveries that are due; no other caller gets them for a while."""
        rows = await self._session.fetch_all(
            _SQL["claim"],
            limit=_AT_ONCE,
            of_each=_OF_EACH,
            pause=PAUSE,
            longest_pause=LONGEST_PAUSE,
        )
        return [Delivery(row["webhook_id"], row["url"], row["secret"], _event(row)) for row in rows]

    async def delivered(self, webhook_id: int, event_id: int) -> None:
        """Note that an event has arrived."""
        await self._session.execute(_SQL["delivered"], webhook_id=webhook_id, event_id=event_id)

    async def failed(self, webhook_id: int, event_id: int, error: str) -> None:
        """Note why an event has not arrived."""
        await self._session.execute(
            _SQL["failed"],
            webhook_id=webhook_id,
            event_id=event_id,
            error=storable(error),
            give_up=GIVE_UP,
        )

    async def troubled(self, limit: int) -> list[Trouble]:
        """Return failed deliveries, the newest first."""
        rows = await self._session.fetch_all(_SQL["troubled"], limit=limit)
        return [
            Trouble(
                row["webhook_id"],
                row["url"],
                int(row["tries"]),
                row["next_at"],
                row["error"],
                _event(row),
            )
            for row in rows
        ]


def _event(row: Row) -> Event:
    return Event(**{name: row[name] for name in Event.__dataclass_fields__})
