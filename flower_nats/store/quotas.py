"""Limits of federations and accounts, in the database."""

from dataclasses import dataclass

from flower_nats.model.quota import Overdue, Quota
from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("quotas")


@dataclass(frozen=True)
class Use:
    """How many runs of a federation or an account count against its limits."""

    kind: str
    name: str
    begun: int
    pending: int


class Quotas:
    """The limits of this runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def set(self, quota: Quota) -> None:
        """Store limits; without any, the limits of `EACH` apply."""
        if quota.is_empty:
            await self._session.execute(_SQL["remove"], kind=quota.kind, name=quota.name)
            return
        await self._session.execute(
            _SQL["set"],
            kind=quota.kind,
            name=quota.name,
            runs_at_once=quota.runs_at_once,
            run_seconds=quota.run_seconds,
        )

    async def get(self, kind: str, name: str) -> Quota:
        """Return the limits of a federation or an account, locked until the transaction ends."""
        row = await self._session.fetch_one(_SQL["get"], kind=kind, name=name)
        return Quota(kind, name) if row is None else Quota(**row)

    async def all(self) -> list[Quota]:
        """Return all limits."""
        return [Quota(**row) for row in await self._session.fetch_all(_SQL["list"])]

    async def use(self) -> list[Use]:
        """Return the number of unfinished runs of each federation and account that has any."""
        return [Use(**row) for row in await self._session.fetch_all(_SQL["use"])]

    async def overdue(self) -> list[Overdue]:
        """Return the runs that have taken longer than allowed."""
        return [Overdue(**row) for row in await self._session.fetch_all(_SQL["overdue"])]
