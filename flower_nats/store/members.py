"""The accounts and the nodes of federations, in the database."""

from collections.abc import Iterable
from dataclasses import dataclass

from flower_nats.model.federation import Member, MemberRole
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("members")


@dataclass(frozen=True)
class RunSeen:
    """A run, and an account's relation to it."""

    federation: str
    owner: str
    """The id of the account that started it."""
    role: MemberRole | None
    """The account's role in the run's federation; None if it has none."""


class Members:
    """The accounts and the nodes that are in federations."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def role(self, federation: str, account_id: str) -> MemberRole | None:
        """Return the role of an account in a federation, None if it is not in it."""
        row = await self._session.fetch_one(
            _SQL["role"], federation=storable(federation), account_id=account_id
        )
        return None if row is None else MemberRole(row["role"])

    async def of_run(self, run_id: int, account_id: str) -> RunSeen | None:
        """Return an account's relation to a run; None if there is no such run."""
        row = await self._session.fetch_one(_SQL["of_run"], run_id=run_id, account_id=account_id)
        if row is None:
            return None
        role = None if row["role"] is None else MemberRole(row["role"])
        return RunSeen(row["federation"], row["account_id"], role)

    async def of(self, federation: str) -> list[Member]:
        """Return the members of a federation, in the order in which they joined."""
        rows = await self._session.fetch_all(_SQL["list"], federation=federation)
        return [_member(row) for row in rows]

    async def by_name(self, federation: str, account_name: str) -> Member | None:
        """Return an account that is in a federation, None if it is not."""
        row = await self._session.fetch_one(
            _SQL["by_name"], federation=federation, account_name=storable(account_name)
        )
        return None if row is None else _member(row)

    async def federations(self, account_id: str, roles: Iterable[MemberRole]) -> list[str]:
        """Return the active federations in which an account has one of the roles."""
        rows = await self._session.fetch_all(
            _SQL["federations"], account_id=account_id, roles=[str(role) for role in roles]
        )
        return [row["federation"] for row in rows]

    async def add(self, federation: str, member: Member) -> bool:
        """Add an account; False if it is a member already."""
        row = await self._session.fetch_one(
            _SQL["add"],
            federation=federation,
            account_id=member.account_id,
            account_name=member.account_name,
            role=str(member.role),
        )
        return row is not None

    async def set_role(self, federation: str, account_id: str, role: MemberRole) -> None:
        """Change what a member may do."""
        await self._session.execute(
            _SQL["set_role"], federation=federation, account_id=account_id, role=str(role)
        )

    async def remove(self, federation: str, account_id: str) -> None:
        """Remove an account and its nodes from a federation."""
        await self._session.execute(_SQL["remove"], federation=federation, account_id=account_id)

    async def add_node(self, federation: str, node_id: int) -> bool:
        """Add a node to a federation; False if it is in it already."""
        row = await self._session.fetch_one(
            _SQL["add_node"], federation=federation, node_id=node_id
        )
        return row is not None

    async def remove_node(self, federation: str, node_id: int) -> bool:
        """Remove a node from a federation; False if it was not in it."""
        row = await self._session.fetch_one(
            _SQL["remove_node"], federation=federation, node_id=node_id
        )
        return row is not None

    async def has_node(self, federation: str, node_id: int) -> bool:
        """Return whether a node is in a federation."""
        row = await self._session.fetch_one(
            _SQL["has_node"], federation=federation, node_id=node_id
        )
        return row is not None


def _member(row: Row) -> Member:
    return Member(row["account_id"], row["account_name"], MemberRole(row["role"]))
