"""Federations in the database."""

from flower_nats.model.federation import Federation
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("federations")


class Federations:
    """The federations of this runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, name: str) -> Federation | None:
        """Return a federation, None if there is none."""
        return _federation(await self._session.fetch_one(_SQL["get"], name=storable(name)))

    async def lock(self, name: str) -> Federation | None:
        """Return a federation, locked until the transaction ends."""
        return _federation(await self._session.fetch_one(_SQL["lock"], name=storable(name)))

    async def hold(self, name: str) -> Federation | None:
        """Return a federation, which cannot change until the transaction ends."""
        return _federation(await self._session.fetch_one(_SQL["hold"], name=storable(name)))

    async def of(self, account_id: str | None) -> list[Federation]:
        """Return the federations of an account, or all, oldest first."""
        rows = await self._session.fetch_all(_SQL["list"], account_id=account_id)
        return [found for row in rows if (found := _federation(row)) is not None]

    async def create(self, name: str, description: str, *, simulation: bool) -> Federation | None:
        """Store a federation; None if its name was ever used."""
        row = await self._session.fetch_one(
            _SQL["create"], name=name, description=storable(description), simulation=simulation
        )
        return _federation(row)

    async def configure(self, name: str, simulation_config: bytes) -> None:
        """Store the simulation options of a federation."""
        await self._session.execute(
            _SQL["configure"], name=name, simulation_config=simulation_config
        )

    async def archive(self, name: str) -> Federation | None:
        """Archive a federation, which then takes no runs; None if there is no active one."""
        return _federation(await self._session.fetch_one(_SQL["archive"], name=storable(name)))


def _federation(row: Row | None) -> Federation | None:
    if row is None:
        return None
    return Federation(
        name=row["name"],
        description=row["description"],
        simulation_config=bytes(row["simulation_config"]),
        archived=row["archived_at"] is not None,
        simulation=row["simulation"],
    )
