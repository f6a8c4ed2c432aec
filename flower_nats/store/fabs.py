"""FABs in the database."""

from collections.abc import Mapping
from dataclasses import dataclass

from flower_nats.model.app_signature import AppSignature
from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("fabs")


@dataclass(frozen=True)
class StoredFab:
    """A FAB as it was submitted."""

    fab_hash: str
    content: bytes
    verifications: Mapping[str, str]
    """The verifications for SuperNodes, by the id of the signing key."""


class Fabs:
    """The FABs that were submitted here, by hash."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def put(self, fab_hash: str, content: bytes) -> None:
        """Store a FAB unless it is here already."""
        await self._session.execute(_SQL["put"], fab_hash=fab_hash, content=content)

    async def get(self, fab_hash: str) -> StoredFab | None:
        """Return a FAB, None if it was never submitted."""
        row = await self._session.fetch_one(_SQL["get"], fab_hash=fab_hash)
        if row is None:
            return None
        return StoredFab(fab_hash, row["content"], row["verifications"])

    async def is_of(self, federation: str, fab_hash: str) -> bool:
        """Return whether a run or an app of a federation uses a FAB."""
        row = await self._session.fetch_one(_SQL["is_of"], federation=federation, fab_hash=fab_hash)
        return row is not None

    async def drop_unused(self, fab_hash: str) -> None:
        """Delete a FAB unless a run or an app uses it."""
        await self._session.execute(_SQL["drop_unused"], fab_hash=fab_hash)

    async def sign(self, signature: AppSignature) -> None:
        """Store the signature of a FAB, which may be submitted later."""
        await self._session.execute(
            _SQL["sign"],
            fab_hash=signature.fab_hash,
            key_id=signature.key_id,
            verification=signature.verification,
        )
