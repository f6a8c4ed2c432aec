"""The audit trail in the database: events are added, and never changed."""

from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from datetime import datetime

from flower_nats.model.audit import AuditEvent, ChainedEvent, chain_hash, cut
from flower_nats.store.connection import Row, Session, Transaction, storable
from flower_nats.store.queries import load

_SQL = load("audit")

_FIELDS = tuple(field.name for field in fields(AuditEvent))


@dataclass
class Attempt:
    """A call that is being served, and becomes an event."""

    event: AuditEvent
    """The event so far; its outcome holds if nothing refuses the call."""
    recorded: ChainedEvent | None = None
    """The event as it was added. Until the transaction has ended, it may be added again."""


ATTEMPT: ContextVar[Attempt | None] = ContextVar("attempt", default=None)
"""The call that is being served, if it becomes an event. `once` adds the event in the transaction
that carries the call out, so that either both are stored or neither."""


def note_object(text: str) -> None:
    """Set the object of the present call's event, such as the run that the call started."""
    attempt = ATTEMPT.get()
    if attempt is not None:
        attempt.event = replace(attempt.event, object=text)


def note_account(account_id: str, account_name: str) -> None:
    """Set the account of the present call's event."""
    attempt = ATTEMPT.get()
    if attempt is not None:
        attempt.event = replace(attempt.event, account_id=account_id, account_name=account_name)


@dataclass(frozen=True)
class Chain:
    """The first and the last link of the chain."""

    last_id: int
    last_hash: bytes
    forgotten_id: int
    """The last event that was removed because of its age; 0 for none."""
    forgotten_hash: bytes


@dataclass(frozen=True)
class Filter:
    """A filter for events; None for all."""

    account: str | None = None
    action: str | None = None
    object: str | None = None
    """A part of the object."""
    outcome: str | None = None
    since: datetime | None = None


class AuditTrail:
    """The events, in the order in which they were added."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def events(self, wanted: Filter, after: int, limit: int) -> list[ChainedEvent]:
        """Return the first events after `after` that fit a filter."""
        rows = await self._session.fetch_all(
            _SQL["list"],
            account=wanted.account,
            action=wanted.action,
            object=wanted.object,
            outcome=wanted.outcome,
            since=wanted.since,
            after=after,
            limit=limit,
        )
        return [_chained(row) for row in rows]

    async def chain(self) -> Chain:
        """Return the beginning and the end of the chain."""
        row = await self._session.fetch_one(_SQL["chain"])
        assert row is not None
        return Chain(
            row["last_id"],
            bytes(row["last_hash"]),
            row["forgotten_id"],
            bytes(row["forgotten_hash"]),
        )

    async def is_known(self, event: AuditEvent) -> bool:
        """Return whether a request has its event."""
        row = await self._session.fetch_one(
            _SQL["is_known"], request_id=event.request_id, action=event.action
        )
        return row is not None

    async def forget(self, days: int) -> int:
        """Remove events older than `days` and than the owner's bound; return how many."""
        row = await self._session.fetch_one(_SQL["forget"], days=days)
        return 0 if row is None else int(row["count"])

    async def bound(self) -> int:
        """Return for how many days events are kept at least, 0 for ever."""
        row = await self._session.fetch_one(_SQL["bound"])
        return 0 if row is None else int(row["least_days"])

    async def set_bound(self, days: int) -> None:
        """Set the bound, 0 for ever. Raises `NotAllowed` if the role does not own the tables."""
        await self._session.execute(_SQL["set_bound"], days=days)


async def append(transaction: Transaction, event: AuditEvent) -> ChainedEvent:
    """Add an event, as the last step of a transaction: other calls wait until it ends."""
    last = await transaction.fetch_one(_SQL["last"])
    assert last is not None
    event = AuditEvent(**{name: storable(cut(getattr(event, name))) for name in _FIELDS})
    event_id, at = last["last_id"] + 1, last["at"]
    hashed = chain_hash(bytes(last["last_hash"]), event_id, at, event)
    values = {name: getattr(event, name) for name in _FIELDS}
    await transaction.execute(_SQL["append"], event_id=event_id, at=at, hash=hashed, **values)
    return ChainedEvent(event_id, at, event, hashed)


def _chained(row: Row) -> ChainedEvent:
    event = AuditEvent(**{name: row[name] for name in _FIELDS})
    return ChainedEvent(row["event_id"], row["at"], event, bytes(row["hash"]))
