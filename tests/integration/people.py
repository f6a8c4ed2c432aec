"""People with accounts, who call a superlink's Control API like users of the CLI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flower_nats.model.account import Role
from flower_nats.model.federation import MemberRole
from flower_nats.store.members import Members
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from harness.accounts import LoggedIn, log_in
from harness.fabs import make_fab
from tests.integration.superlinks import Node, Superlink


@dataclass(frozen=True)
class Person:
    """A person with an account, logged in."""

    superlink: Superlink
    logged_in: LoggedIn

    @classmethod
    async def come(cls, superlink: Superlink, name: str, role: Role = Role.USER) -> Person:
        """Make an account for a person, and log in."""
        return cls(superlink, await log_in(superlink.database, name, role))

    @property
    def name(self) -> str:
        """The name of the account."""
        return self.logged_in.account.name

    @property
    def account_id(self) -> str:
        """The id of the account."""
        return self.logged_in.account.account_id

    async def call(self, method: str, request_id: str | None = None, **fields: Any) -> Any:
        """Call the Control API."""
        rpc = BY_NAME[("Control", method)]
        caller: dict[str, Any] = {"account_token": self.logged_in.token_hash}
        if request_id is not None:
            caller["request_id"] = request_id
        request = rpc.request(**fields)
        return await self.superlink.call("Control", method, request, rpc.response, **caller)

    async def create(self, name: str, **fields: Any) -> str:
        """Create a federation; return its full name."""
        answer = await self.call("CreateFederation", federation_name=name, **fields)
        return str(answer.federation.name)

    async def invite(self, other: Person, federation: str) -> None:
        """Invite another person into a federation; the other person accepts."""
        await self.call(
            "CreateInvitation", federation_name=federation, invitee_account_name=other.name
        )
        await other.call("AcceptInvitation", federation_name=federation)

    async def let_in(self, federation: str, role: MemberRole) -> None:
        """Set the person's role in a federation, which operators can do, too."""
        await Members(self.superlink.database).set_role(federation, self.account_id, role)

    async def start_run(self, federation: str = "") -> int:
        """Start a run."""
        fab = common.Fab(content=make_fab())
        return int((await self.call("StartRun", fab=fab, federation=federation)).run_id)

    async def runs(self) -> set[int]:
        """Return the runs that `flwr list` shows."""
        return set((await self.call("ListRuns")).run_dict)

    async def show(self, federation: str) -> common.Federation:
        """Return the federation that `flwr federation list --federation` shows."""
        answer = await self.call("ShowFederation", federation_name=federation)
        return answer.federation  # type: ignore[no-any-return]

    async def federations(self) -> list[str]:
        """Return the names that `flwr federation list` shows."""
        return [one.name for one in (await self.call("ListFederations")).federations]

    async def register(self, federation: str | None = None) -> Node:
        """Register a SuperNode, bring it online, and add it to a federation."""
        key = (
            ec.generate_private_key(ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        registered: control.RegisterNodeResponse = await self.call("RegisterNode", public_key=key)
        node = Node(self.superlink, registered.node_id, key)
        await node.activate()
        if federation is not None:
            await self.call("AddNodeToFederation", federation_name=federation, node_id=node.node_id)
        return node
