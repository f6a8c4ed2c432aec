"""The known federations, the kind of their runs, and the refusal for unknown ones."""

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import Federation
from flower_nats.store.connection import Session
from flower_nats.store.federations import Federations


class KnownFederations:
    """The federations of this runtime."""

    def __init__(self, session: Session, *, simulation: bool) -> None:
        """`simulation` says whether runs in the default federation are simulations."""
        self._federations = Federations(session)
        self._simulation = simulation

    async def of(self, account_id: str | None) -> list[Federation]:
        """Return the federations of an account, or all; the default one first."""
        found = await self._federations.of(account_id)
        return sorted(found, key=lambda one: not one.is_default)

    async def find(self, name: str) -> Federation | None:
        """Return a federation, archived or not; None if there is none."""
        return await self._federations.get(name)

    async def open(self, name: str) -> Federation:
        """Return a federation that takes runs.

        Raises `ApiError` (FEDERATION_NOT_FOUND_OR_NO_PERMISSION) if it does not exist or was
        archived.
        """
        found = await self._federations.get(name)
        if found is None or found.archived:
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, name)
        return found

    def is_simulation(self, federation: Federation) -> bool:
        """Whether runs in it are simulations."""
        return self._simulation if federation.is_default else federation.simulation
