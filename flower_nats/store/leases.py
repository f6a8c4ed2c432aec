"""Leases in the database: which replica does which housekeeping, for a few seconds at a time."""

from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("leases")


class Leases:
    """Leases on work that one replica at a time should do."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def try_lease(self, name: str, holder: str, seconds: float) -> bool:
        """Take a free or expired lease, or prolong one's own; return whether the holder has it."""
        row = await self._session.fetch_one(
            _SQL["try_lease"], name=name, holder=holder, seconds=seconds
        )
        return row is not None

    async def is_held(self, name: str) -> bool:
        """Return whether somebody has a lease."""
        return await self._session.fetch_one(_SQL["is_held"], name=name) is not None

    async def release(self, holder: str) -> None:
        """Release all leases of a holder, so that others need not wait until they expire."""
        await self._session.execute(_SQL["release"], holder=holder)
