"""The Control API about federations: there is one, and nobody can make, change or leave any.

Refusals come in the order of the open SuperLink of flwr 1.42 (`superlink/servicer/control/`
`control_handlers.py`, `superlink/federation/noop_federation_manager.py`), so that its CLI says the same.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import DEFAULT_FEDERATION, DEFAULT_FEDERATION_DESCRIPTION
from flower_nats.store.connection import Database
from flower_nats.store.nodes import Nodes
from flower_nats.store.runs import Runs
from flower_nats.superlink.codecs import ProtoHandler, refuse
from flower_nats.superlink.convert import node_to_wire, now_iso, run_to_wire
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control

_UNSUPPORTED = (
    "RemoveAccountFromFederation", "ListInvitations", "RejectInvitation", "RevokeInvitation",
)  # fmt: skip


class FederationsApi:
    """Serves the CLI's commands about federations."""

    def __init__(self, database: Database) -> None:
        self._nodes = Nodes(database)
        self._runs = Runs(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served or refused here."""
        return {
            **{name: refuse(ErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT) for name in _UNSUPPORTED},
            "ListFederations": self.list_federations,
            "ShowFederation": self.show_federation,
            "CreateFederation": self.change_federation,
            "ArchiveFederation": self.change_federation,
            "SetFederationIcon": self.change_federation,
            "AddNodeToFederation": self.move_node,
            "RemoveNodeFromFederation": self.move_node,
            "CreateInvitation": self.invite,
            "AcceptInvitation": self.invite,
            "ConfigureSimulationFederation": refuse(
                ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION,
                "There are no simulation federations here: runs go to connected SuperNodes.",
            ),
        }

    async def list_federations(
        self, request: control.ListFederationsRequest, caller: Caller
    ) -> control.ListFederationsResponse:
        """Return the one federation there is."""
        return control.ListFederationsResponse(federations=[_federation(caller)])

    async def show_federation(
        self, request: control.ShowFederationRequest, caller: Caller
    ) -> control.ShowFederationResponse:
        """Return the one federation with its nodes and runs."""
        if request.federation_name != DEFAULT_FEDERATION:
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER, request.federation_name)
        nodes = await self._nodes.owned_by(caller.account_id)
        runs = await self._runs.of_account(caller.account_id)
        federation = _federation(caller)
        federation.nodes.extend(node_to_wire(node) for node in nodes)
        federation.runs.extend(run_to_wire(run) for run in runs)
        return control.ShowFederationResponse(federation=federation, now=now_iso())

    async def change_federation(self, request: Any, caller: Caller) -> NoReturn:
        """Refuse to make, archive or decorate a federation."""
        if not request.federation_name:
            raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, type(request).__name__)
        raise _unsupported(request)

    async def move_node(self, request: Any, caller: Caller) -> NoReturn:
        """Refuse to put a node into a federation or out of it: all nodes are in the one there is."""
        check_membership(request.federation_name)
        if not await self._nodes.is_owned_by(request.node_id, caller.account_id):
            raise ApiError(ErrorCode.NODE_NOT_FOUND_OR_NOT_OWNER, f"node {request.node_id}")
        raise _unsupported(request)

    async def invite(self, request: Any, caller: Caller) -> NoReturn:
        """Refuse to invite an account into a federation, or to follow an invitation."""
        check_known(request.federation_name)
        raise _unsupported(request)


def check_known(federation: str) -> None:
    """Check that a federation is the one there is."""
    if federation != DEFAULT_FEDERATION:
        raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, federation)


def check_membership(federation: str) -> None:
    """Check that a federation is named, and is the one there is: everybody is a member of that."""
    if not federation:
        raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, "no federation is named")
    if federation != DEFAULT_FEDERATION:
        raise ApiError(ErrorCode.FEDERATION_NOT_FOUND, federation)


def _federation(caller: Caller) -> common.Federation:
    account = common.Account(id=caller.account_id, name=caller.account_name)
    return common.Federation(
        name=DEFAULT_FEDERATION,
        description=DEFAULT_FEDERATION_DESCRIPTION,
        members=[common.Member(account=account, role="owner")],
        member_count=1,
    )


def _unsupported(request: Any) -> ApiError:
    return ApiError(ErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT, type(request).__name__)
