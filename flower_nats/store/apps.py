"""Apps of a federation in the database: an app that was run here can be run again by name."""

from dataclasses import dataclass

from flower_nats.model.fab import FabInfo
from flower_nats.store.connection import Session, storable
from flower_nats.store.queries import load

_SQL = load("apps")


@dataclass(frozen=True)
class App:
    """An app that a federation has."""

    app_id: str
    """`@publisher/name`."""
    fab_hash: str
    """Its newest FAB."""
    app_type: str
    """The type of the primary task of its runs."""
    display_name: str
    description: str
    color: str


class Apps:
    """The apps of the federations."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def put(self, federation: str, info: FabInfo) -> None:
        """Note a stored FAB as the newest of its app."""
        await self._session.execute(
            _SQL["put"],
            federation=federation,
            app_id=f"@{info.fab_id}",
            fab_hash=info.fab_hash,
            app_type=str(info.task_type),
            display_name=storable(info.display_name),
            description=storable(info.description),
            color=storable(info.color),
        )

    async def of(self, federation: str, limit: int | None = None) -> list[App]:
        """Return the apps of a federation, newest first, at most `limit` of them."""
        rows = await self._session.fetch_all(_SQL["list"], federation=federation, limit=limit)
        return [App(**row) for row in rows]

    async def federations(self, app_id: str, account_id: str | None) -> list[str]:
        """Return the federations that have an app, of one account or of all."""
        rows = await self._session.fetch_all(
            _SQL["federations"], app_id=app_id, account_id=account_id
        )
        return [row["federation"] for row in rows]

    async def remove(self, federation: str, app_id: str) -> None:
        """Take an app out of a federation, if it is there."""
        await self._session.execute(_SQL["remove"], federation=federation, app_id=app_id)

    async def leave_fab(self, fab_hash: str) -> None:
        """Move apps from a FAB that no run uses to an older one, or delete apps without a run."""
        await self._session.execute(_SQL["go_back"], fab_hash=fab_hash)
        await self._session.execute(_SQL["drop_unused"], fab_hash=fab_hash)
