"""The Control API about federations: their accounts, SuperNodes and simulation options.

The guard has refused calls that an account may not make (`accounts/rights.py`). The default
federation, of callers without an account, cannot be created, archived or left, and nobody is
invited into it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NoReturn

from flower_nats.broker.hints import Hints
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import (
    LONGEST_NAME,
    Federation,
    Invitation,
    Member,
    MemberRole,
)
from flower_nats.model.run import MOST_LISTED
from flower_nats.model.task import Finished
from flower_nats.model.visible import visible_name
from flower_nats.store.accounts import Accounts
from flower_nats.store.audit import note_object
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.federations import Federations
from flower_nats.store.idempotency import once
from flower_nats.store.invitations import Invitations
from flower_nats.store.members import Members
from flower_nats.store.nodes import Nodes
from flower_nats.store.runs import Runs
from flower_nats.superlink.accounts.rights import LEVELS, Level
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.convert import invitation_to_wire, node_to_wire, now_iso, run_to_wire
from flower_nats.superlink.runs import simulation
from flower_nats.superlink.runs.federations import KnownFederations
from flower_nats.superlink.runs.lifecycle import Lifecycle
from flower_nats.superlink.runs.run_ends import stop_runs
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
"""The names that stock accepts (flwr 1.42 `cli/utils.py` is_valid_name)."""

_DESCRIPTION_LENGTH = 1_000
"""Characters of a federation's description that are kept. Lists show it."""

_MOST_SHOWN = 20
"""Members of a federation in a list of federations; all are shown with the federation itself."""


class FederationsApi:
    """Serves the CLI's commands about federations."""

    def __init__(
        self,
        database: Database,
        lifecycle: Lifecycle,
        federations: KnownFederations,
        hints: Hints,
    ) -> None:
        self._hints = hints
        self._database = database
        self._lifecycle = lifecycle
        self._federations = federations
        self._members = Members(database)
        self._invitations = Invitations(database)
        self._nodes = Nodes(database)
        self._runs = Runs(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC that is served or refused here."""
        return {
            "ListFederations": self.list_federations,
            "ShowFederation": self.show_federation,
            "CreateFederation": self.create_federation,
            "ArchiveFederation": self.archive_federation,
            "SetFederationIcon": self.set_icon,
            "AddNodeToFederation": self.add_node,
            "RemoveNodeFromFederation": self.remove_node,
            "RemoveAccountFromFederation": self.remove_account,
            "CreateInvitation": self.invite,
            "ListInvitations": self.list_invitations,
            "AcceptInvitation": self.accept,
            "RejectInvitation": self.reject,
            "RevokeInvitation": self.revoke,
            "ConfigureSimulationFederation": self.configure_simulation,
        }

    async def list_federations(
        self, request: control.ListFederationsRequest, caller: Caller
    ) -> control.ListFederationsResponse:
        """Return the account's federations."""
        found = await self._federations.of(caller.sees)
        return control.ListFederationsResponse(
            federations=[await self._to_wire(one, caller, _MOST_SHOWN) for one in found]
        )

    async def show_federation(
        self, request: control.ShowFederationRequest, caller: Caller
    ) -> control.ShowFederationResponse:
        """Return a federation with its nodes and runs, and how it simulates."""
        found = await self._federations.find(request.federation_name)
        if found is None:
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER, request.federation_name)
        nodes = await self._nodes.of_federation(found.name)
        runs = await self._runs.in_federation(found.name, MOST_LISTED)
        federation = await self._to_wire(found, caller)
        federation.nodes.extend(node_to_wire(node) for node in nodes)
        federation.runs.extend(run_to_wire(run, run.account_name) for run in runs)
        if federation.simulation:
            config = simulation.merged(simulation.DEFAULTS, found.simulation_config)
            federation.config.CopyFrom(config)
        return control.ShowFederationResponse(federation=federation, now=now_iso())

    async def create_federation(
        self, request: control.CreateFederationRequest, caller: Caller
    ) -> control.CreateFederationResponse:
        """Create a federation that the caller owns."""
        name = request.federation_name
        if not name:
            raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, type(request).__name__)
        if not (_NAME.fullmatch(name) and len(name) <= LONGEST_NAME):
            text = (
                "A name may have letters, digits and, between them, hyphens, at most "
                f"{LONGEST_NAME} characters in all."
            )
            raise ApiError(ErrorCode.INVALID_FEDERATION_NAME, text, text)

        async def create(transaction: Transaction) -> bytes:
            created = await Federations(transaction).create(
                f"@{caller.account_name}/{name}",
                request.description[:_DESCRIPTION_LENGTH],
                simulation=request.simulation,
            )
            if created is None:
                raise ApiError(ErrorCode.FEDERATION_ALREADY_EXISTS, name)
            note_object(created.name)
            owner = Member(caller.account_id, caller.account_name, MemberRole.OWNER)
            await Members(transaction).add(created.name, owner)
            return _summary(created, created.simulation, [owner], Level.OWNER).SerializeToString()

        answer = await once(self._database, caller.request_id, create)
        federation = common.Federation.FromString(answer)
        log.info("federation_created", federation=federation.name, account=caller.account_id)
        return control.CreateFederationResponse(federation=federation)

    async def archive_federation(
        self, request: control.ArchiveFederationRequest, caller: Caller
    ) -> control.ArchiveFederationResponse:
        """Archive a federation, so that it takes no runs, and stop its runs."""
        name = request.federation_name
        stopped: list[Finished] = []

        async def archive(transaction: Transaction) -> bytes:
            await _open(transaction, name)
            await Federations(transaction).archive(name)
            stopped[:] = await stop_runs(transaction, name)
            return b""

        await once(self._database, caller.request_id, archive)
        log.info("federation_archived", federation=name, account=caller.account_id)
        await self._tell(stopped)
        return control.ArchiveFederationResponse()

    async def add_node(
        self, request: control.AddNodeToFederationRequest, caller: Caller
    ) -> control.AddNodeToFederationResponse:
        """Add a node to a federation, so that runs reach it."""
        name, node_id = request.federation_name, request.node_id

        async def add(transaction: Transaction) -> bytes:
            federation = await _open(transaction, name, default=True)
            if not federation.is_default and federation.simulation:
                text = f"Runs in {name} are simulated: no SuperNode takes part."
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, text, text)
            if not await Members(transaction).add_node(name, node_id):
                raise ApiError(ErrorCode.SUPERNODE_ALREADY_IN_FEDERATION, f"node {node_id}")
            return b""

        await once(self._database, caller.request_id, add)
        log.info("federation_node_added", federation=name, node_id=node_id)
        return control.AddNodeToFederationResponse()

    async def remove_node(
        self, request: control.RemoveNodeFromFederationRequest, caller: Caller
    ) -> control.RemoveNodeFromFederationResponse:
        """Remove a node from a federation; running runs get an error in place of its replies."""
        name, node_id = request.federation_name, request.node_id

        async def remove(transaction: Transaction) -> bytes:
            await _open(transaction, name)
            if not await Members(transaction).remove_node(name, node_id):
                text = f"SuperNode {node_id} is not in {name}."
                raise ApiError(ErrorCode.NODE_NOT_FOUND_OR_NOT_OWNER, text, text)
            return b""

        await once(self._database, caller.request_id, remove)
        log.info("federation_node_removed", federation=name, node_id=node_id)
        return control.RemoveNodeFromFederationResponse()

    async def remove_account(
        self, request: control.RemoveAccountFromFederationRequest, caller: Caller
    ) -> control.RemoveAccountFromFederationResponse:
        """Remove an account and its nodes from a federation, and stop its runs there."""
        name, target = request.federation_name, request.account_name or caller.account_name
        stopped: list[Finished] = []

        async def remove(transaction: Transaction) -> bytes:
            await _open(transaction, name, archived=True)
            members = Members(transaction)
            member = await members.by_name(name, target)
            if member is None:
                raise ApiError(ErrorCode.ACCOUNT_NOT_A_MEMBER, target)
            _check_removal(member, await members.role(name, caller.account_id), caller)
            await members.remove(name, member.account_id)
            stopped[:] = await stop_runs(transaction, name, member.account_id)
            return b""

        await once(self._database, caller.request_id, remove)
        log.info("federation_account_removed", federation=name, removed=target)
        # This makes gateways check again the rights of callers that follow a run's log there.
        await self._hints.accounts_changed()
        await self._tell(stopped)
        return control.RemoveAccountFromFederationResponse()

    async def invite(
        self, request: control.CreateInvitationRequest, caller: Caller
    ) -> control.CreateInvitationResponse:
        """Invite an account into a federation."""
        name, invitee_name = request.federation_name, request.invitee_account_name

        async def create(transaction: Transaction) -> bytes:
            await _open(transaction, name)
            account = await Accounts(transaction).by_name(invitee_name)
            if account is None or account.disabled_at is not None:
                text = (
                    f"There is no account {invitee_name[:80]!r} that may log in. Create one with "
                    "`flower-nats account create`. With an OIDC issuer, the first `flwr login` "
                    "creates it."
                )
                raise ApiError(ErrorCode.ACCOUNTS_NOT_FOUND, invitee_name[:80], text)
            if await Members(transaction).role(name, account.account_id) is not None:
                raise ApiError(ErrorCode.ACCOUNT_ALREADY_MEMBER, account.name)
            inviter = Member(caller.account_id, caller.account_name, MemberRole.ADMIN)
            invitee = Member(account.account_id, account.name, MemberRole.MEMBER)
            if not await Invitations(transaction).create(name, inviter, invitee):
                raise ApiError(ErrorCode.INVITE_ALREADY_EXISTS, account.name)
            return b""

        await once(self._database, caller.request_id, create)
        log.info("invitation_created", federation=name, account=caller.account_id)
        return control.CreateInvitationResponse()

    async def list_invitations(
        self, request: control.ListInvitationsRequest, caller: Caller
    ) -> control.ListInvitationsResponse:
        """Return the invitations that the account has sent and received."""
        created = await self._invitations.created_by(caller.account_id)
        received = await self._invitations.received_by(caller.account_id)
        return control.ListInvitationsResponse(
            created_invitations=_written(created), received_invitations=_written(received)
        )

    async def accept(
        self, request: control.AcceptInvitationRequest, caller: Caller
    ) -> control.AcceptInvitationResponse:
        """Accept an invitation, as a member."""
        name = request.federation_name

        async def accept(transaction: Transaction) -> bytes:
            await _answer_invitation(transaction, name, caller, "accepted")
            member = Member(caller.account_id, caller.account_name, MemberRole.MEMBER)
            await Members(transaction).add(name, member)
            return b""

        await once(self._database, caller.request_id, accept)
        log.info("invitation_accepted", federation=name, account=caller.account_id)
        return control.AcceptInvitationResponse()

    async def reject(
        self, request: control.RejectInvitationRequest, caller: Caller
    ) -> control.RejectInvitationResponse:
        """Reject an invitation."""

        async def reject(transaction: Transaction) -> bytes:
            await _answer_invitation(transaction, request.federation_name, caller, "rejected")
            return b""

        await once(self._database, caller.request_id, reject)
        log.info("invitation_rejected", federation=request.federation_name)
        return control.RejectInvitationResponse()

    async def revoke(
        self, request: control.RevokeInvitationRequest, caller: Caller
    ) -> control.RevokeInvitationResponse:
        """Revoke a pending invitation."""
        name, invitee_name = request.federation_name, request.invitee_account_name

        async def revoke(transaction: Transaction) -> bytes:
            if not await Invitations(transaction).revoke(name, invitee_name):
                raise _no_invitation(name)
            return b""

        await once(self._database, caller.request_id, revoke)
        log.info("invitation_revoked", federation=name, account=caller.account_id)
        return control.RevokeInvitationResponse()

    async def configure_simulation(
        self, request: control.ConfigureSimulationFederationRequest, caller: Caller
    ) -> control.ConfigureSimulationFederationResponse:
        """Store a federation's simulation options; options that are not set keep their values."""
        found = await self._federations.open(request.federation_name)
        if not self._federations.is_simulation(found):
            text = (
                f"Runs in {found.name} go to connected SuperNodes. For simulations: `flwr federation "
                "create NAME --simulation`, or `flower-nats up --simulation`."
            )
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, text, text)
        simulation.check(request.config)

        async def configure(transaction: Transaction) -> bytes:
            federations = Federations(transaction)
            former = await federations.lock(found.name)
            said = b"" if former is None else former.simulation_config
            config = simulation.merged(said, request.config)
            await federations.configure(found.name, config.SerializeToString(deterministic=True))
            return b""

        await once(self._database, caller.request_id, configure)
        log.info("simulation_configured", federation=found.name, account=caller.account_id)
        return control.ConfigureSimulationFederationResponse(federation_name=found.name)

    async def set_icon(self, request: control.SetFederationIconRequest, caller: Caller) -> NoReturn:
        """Refuse to set a federation's icon."""
        text = "This SuperLink does not support icons of federations."
        raise ApiError(ErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT, text, text)

    async def _tell(self, stopped: Iterable[Finished]) -> None:
        for finished in stopped:
            await self._lifecycle.task_finished(finished)

    async def _to_wire(
        self, federation: Federation, caller: Caller, shown: int | None = None
    ) -> common.Federation:
        members = await self._members.of(federation.name)
        role = next((one.role for one in members if one.account_id == caller.account_id), None)
        level = Level.ACCOUNT if role is None else LEVELS[role]
        if caller.is_operator:
            level = Level.OPERATOR
        is_simulation = self._federations.is_simulation(federation)
        summary = _summary(federation, is_simulation, members, level)
        del summary.members[shown if shown is not None else len(members) :]
        return summary


def _summary(
    federation: Federation, is_simulation: bool, members: list[Member], level: Level
) -> common.Federation:
    takes_more = not (federation.archived or federation.is_default)
    return common.Federation(
        name=federation.name,
        description=visible_name(federation.description),
        members=[
            common.Member(
                account=common.Account(id=one.account_id, name=one.account_name),
                role=str(one.role),
            )
            for one in members
        ],
        member_count=len(members),
        archived=federation.archived,
        simulation=is_simulation,
        can_invite_members=takes_more and level >= Level.ADMIN,
        can_add_supernodes=takes_more and not is_simulation and level >= Level.MEMBER,
    )


async def _open(
    transaction: Transaction, name: str, *, default: bool = False, archived: bool = False
) -> Federation:
    """Return a federation that may be changed, locked until the transaction ends."""
    found = await Federations(transaction).lock(name)
    if found is None or (found.archived and not archived):
        raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, name)
    if found.is_default and not default:
        text = (
            f"{name} is the federation of callers without an account, and cannot be changed. "
            "Remedy: create another one with `flwr federation create NAME`."
        )
        raise ApiError(ErrorCode.FORBIDDEN_ACTION, text, text)
    return found


async def _answer_invitation(
    transaction: Transaction, name: str, caller: Caller, status: str
) -> None:
    found = await Federations(transaction).lock(name)
    if found is None or not await Invitations(transaction).close(name, caller.account_id, status):
        raise _no_invitation(name)


def _no_invitation(name: str) -> ApiError:
    return ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE, name)


def _check_removal(member: Member, role: MemberRole | None, caller: Caller) -> None:
    """Check that a member may be removed: not one with a higher role, and never the owner."""
    if member.role is MemberRole.OWNER:
        text = (
            "The owner of a federation cannot leave it or be removed. Remedy: `flwr federation "
            "archive`."
        )
        raise ApiError(ErrorCode.FORBIDDEN_ACTION, text, text)
    if caller.is_operator or member.account_id == caller.account_id:
        return
    if member.role is MemberRole.ADMIN and role is not MemberRole.OWNER:
        text = f"{member.account_name} is an admin. Only the owner can remove an admin."
        raise ApiError(ErrorCode.NO_PERMISSIONS, text, text)


def _written(invitations: Iterable[Invitation]) -> list[common.Invitation]:
    return [invitation_to_wire(one) for one in invitations]
