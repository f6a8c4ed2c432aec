"""Invitations into federations, in the database."""

from flower_nats.model.federation import Invitation, Member
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("invitations")

_FIELDS = tuple(Invitation.__dataclass_fields__)


class Invitations:
    """The invitations into federations."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(self, federation: str, inviter: Member, invitee: Member) -> bool:
        """Invite an account into a federation; False if it has a pending invitation."""
        row = await self._session.fetch_one(
            _SQL["create"],
            federation=federation,
            inviter_id=inviter.account_id,
            inviter_name=inviter.account_name,
            invitee_id=invitee.account_id,
            invitee_name=invitee.account_name,
        )
        return row is not None

    async def created_by(self, account_id: str) -> list[Invitation]:
        """Return the invitations that an account has sent, oldest first."""
        rows = await self._session.fetch_all(_SQL["created_by"], account_id=account_id)
        return [_invitation(row) for row in rows]

    async def received_by(self, account_id: str) -> list[Invitation]:
        """Return the invitations that an account has received, oldest first."""
        rows = await self._session.fetch_all(_SQL["received_by"], account_id=account_id)
        return [_invitation(row) for row in rows]

    async def close(self, federation: str, invitee_id: str, status: str) -> bool:
        """Record the invitee's answer to a pending invitation; False if there is none."""
        row = await self._session.fetch_one(
            _SQL["close"],
            federation=storable(federation),
            invitee_id=invitee_id,
            status=status,
        )
        return row is not None

    async def revoke(self, federation: str, invitee_name: str) -> bool:
        """Revoke a pending invitation; False if there is none."""
        row = await self._session.fetch_one(
            _SQL["revoke"], federation=federation, invitee_name=storable(invitee_name)
        )
        return row is not None


def _invitation(row: Row) -> Invitation:
    return Invitation(**{name: row[name] for name in _FIELDS})
