"""Links of `flwr pull` in the database, so that every replica can serve each link."""

from dataclasses import dataclass

from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("downloads")

DOWNLOAD_SECONDS = 900.0
"""Seconds for which a link works."""


@dataclass(frozen=True)
class Download:
    """The target of a link."""

    run_id: int
    session_id: str
    """The session of the account that asked for it; empty without accounts."""


class Downloads:
    """The valid links."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def begin(self, token_hash: bytes, download: Download) -> None:
        """Store a link's token with its run, for `DOWNLOAD_SECONDS`."""
        await self._session.execute(
            _SQL["begin"],
            token_hash=token_hash,
            run_id=download.run_id,
            session_id=download.session_id,
            seconds=DOWNLOAD_SECONDS,
        )

    async def find(self, token_hash: bytes) -> Download | None:
        """Return the target of a token, None if the token is unknown or expired."""
        row = await self._session.fetch_one(_SQL["find"], token_hash=token_hash)
        return None if row is None else Download(row["run_id"], row["session_id"])

    async def drop_expired(self) -> None:
        """Remove expired links."""
        await self._session.execute(_SQL["drop_expired"])
