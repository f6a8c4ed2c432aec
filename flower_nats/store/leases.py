"""Leases in the database: who does which piece of the housekeeping, for a few seconds at a time."""

from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("leases")


class Leases:
    """Claims on work that one replica at a time should do."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def try_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take a lease that is free or over, or prolong one's own; return whether one has it."""
        row = await self._session.fetch_one(
            _SQL["try_lease"], name=name, holder=holder, seconds=seconds
        )
        return row is not None

    async def is_held(self, name: str) -> bool:
        """Return whether somebody has a lease."""
        return await self._session.fetch_one(_SQL["is_held"], name=name) is not None

    async def release(self, holder: str) -> None:
        """Give all leases of a holder back, so that others need not wait for their end."""
        await self._session.execute(_SQL["release"], holder=holder)
