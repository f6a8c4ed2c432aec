"""Links of `flwr pull` in the database: any replica makes one, any serves it."""

from dataclasses import dataclass

from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("downloads")

DOWNLOAD_SECONDS = 900.0
"""Seconds for which a link works."""


@dataclass(frozen=True)
class Download:
    """What a link leads to."""

    run_id: int
    session_id: str
    """The session of the account that has asked for it; empty without accounts."""


class Downloads:
    """The links that are good."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def begin(self, token_hash: bytes, download: Download) -> None:
        """Have the token of a link lead to a run, for `DOWNLOAD_SECONDS`."""
        await self._session.execute(
            _SQL["begin"],
            token_hash=token_hash,
            run_id=download.run_id,
            session_id=download.session_id,
            seconds=DOWNLOAD_SECONDS,
        )

    async def find(self, token_hash: bytes) -> Download | None:
        """Return what a token leads to, None if it is unknown or its time is over."""
        row = await self._session.fetch_one(_SQL["find"], token_hash=token_hash)
        return None if row is None else Download(row["run_id"], row["session_id"])

    async def drop_expired(self) -> None:
        """Remove those whose time is over."""
        await self._session.execute(_SQL["drop_expired"])
