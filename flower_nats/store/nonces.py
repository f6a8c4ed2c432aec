"""Used nonces, in the database: each is for one request, over all replicas."""

from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("nonces")


class Nonces:
    """Nonces of signed requests."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def reserve(self, namespace: str, nonce: str, expires_at: float, holder: str) -> bool:
        """Reserve a nonce until `expires_at` (seconds since 1970); False if another has it."""
        row = await self._session.fetch_one(
            _SQL["reserve"],
            namespace=namespace,
            nonce=nonce,
            expires_at=float(expires_at),
            holder=holder,
        )
        return row is not None

    async def drop_expired(self) -> int:
        """Remove nonces that no request can use any more; return how many."""
        return await self._session.execute(_SQL["drop_expired"])
