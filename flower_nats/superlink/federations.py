"""Which federations there are, what runs in them become, and what is said where one is missing."""

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import DEFAULT_FEDERATION, Federation
from flower_nats.store.connection import Session
from flower_nats.store.federations import Federations


class KnownFederations:
    """The federations of this runtime; everybody is a member of each."""

    def __init__(self, session: Session, *, simulation: bool) -> None:
        self._federations = Federations(session)
        self._simulation = simulation

    async def all(self) -> list[Federation]:
        """Return all federations, that of everything that connects first."""
        return sorted(await self._federations.all(), key=lambda one: not one.is_default)

    async def find(self, name: str) -> Federation | None:
        """Return a federation, archived or not; None if there is none."""
        return await self._federations.get(name)

    async def open(self, name: str) -> Federation:
        """Return the federation that a request names, or the default one if it names none.

        Raises `ApiError` (FEDERATION_NOT_FOUND_OR_NO_PERMISSION) if there is none, or it was archived.
        """
        found = await self._federations.get(name or DEFAULT_FEDERATION)
        if found is None or found.archived:
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, name)
        return found

    async def check_membership(self, name: str) -> None:
        """Check that a federation is named, and that there is one of this name."""
        if not name:
            raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, "no federation is named")
        if await self._federations.get(name) is None:
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND, name)

    def is_simulation(self, federation: Federation) -> bool:
        """Whether runs in it are simulations: so in all that users have created."""
        return self._simulation or not federation.is_default
