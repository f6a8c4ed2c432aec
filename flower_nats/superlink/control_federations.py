"""The Control API about federations: users create and end those that are simulated, and no others.

The one of everything that connects cannot be made, ended, changed or left. Refusals come in the order of
the open SuperLink of flwr 1.42 (`superlink/servicer/control/control_handlers.py`,
`superlink/federation/noop_federation_manager.py`), so that its CLI says the same.
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import LONGEST_NAME, Federation
from flower_nats.model.run import MOST_LISTED
from flower_nats.model.states import SubStatus
from flower_nats.model.task import Finished
from flower_nats.model.visible import visible_name
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.federations import Federations
from flower_nats.store.idempotency import once
from flower_nats.store.nodes import Nodes
from flower_nats.store.runs import Runs
from flower_nats.store.tasks import Tasks
from flower_nats.superlink import simulation
from flower_nats.superlink.codecs import ProtoHandler, refuse
from flower_nats.superlink.convert import node_to_wire, now_iso, run_to_wire
from flower_nats.superlink.federations import KnownFederations
from flower_nats.superlink.lifecycle import Lifecycle
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

_UNSUPPORTED = (
    "RemoveAccountFromFederation", "ListInvitations", "RejectInvitation", "RevokeInvitation",
)  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
"""What stock takes for a name (flwr 1.42 `cli/utils.py` is_valid_name)."""

_DESCRIPTION_LENGTH = 1_000
"""Characters of a federation's description that are kept: it is shown in lists."""


class FederationsApi:
    """Serves the CLI's commands about federations."""

    def __init__(
        self, database: Database, lifecycle: Lifecycle, federations: KnownFederations
    ) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._federations = federations
        self._nodes = Nodes(database)
        self._runs = Runs(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served or refused here."""
        return {
            **{name: refuse(ErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT) for name in _UNSUPPORTED},
            "ListFederations": self.list_federations,
            "ShowFederation": self.show_federation,
            "CreateFederation": self.create_federation,
            "ArchiveFederation": self.archive_federation,
            "SetFederationIcon": self.set_icon,
            "AddNodeToFederation": self.move_node,
            "RemoveNodeFromFederation": self.move_node,
            "CreateInvitation": self.invite,
            "AcceptInvitation": self.invite,
            "ConfigureSimulationFederation": self.configure_simulation,
        }

    async def list_federations(
        self, request: control.ListFederationsRequest, caller: Caller
    ) -> control.ListFederationsResponse:
        """Return all federations."""
        return control.ListFederationsResponse(
            federations=[self._to_wire(one, caller) for one in await self._federations.all()]
        )

    async def show_federation(
        self, request: control.ShowFederationRequest, caller: Caller
    ) -> control.ShowFederationResponse:
        """Return a federation with its nodes and runs, and how it simulates."""
        found = await self._federations.find(request.federation_name)
        if found is None:
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER, request.federation_name)
        nodes = await self._nodes.owned_by(caller.account_id) if found.is_default else []
        runs = await self._runs.of_account(caller.account_id, MOST_LISTED)
        federation = self._to_wire(found, caller)
        federation.nodes.extend(node_to_wire(node) for node in nodes)
        federation.runs.extend(run_to_wire(run) for run in runs if run.federation == found.name)
        if federation.simulation:
            config = simulation.merged(simulation.DEFAULTS, found.simulation_config)
            federation.config.CopyFrom(config)
        return control.ShowFederationResponse(federation=federation, now=now_iso())

    async def create_federation(
        self, request: control.CreateFederationRequest, caller: Caller
    ) -> control.CreateFederationResponse:
        """Create a federation for simulations; there are no others to create."""
        name = request.federation_name
        if not name:
            raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, type(request).__name__)
        if not (_NAME.fullmatch(name) and len(name) <= LONGEST_NAME):
            text = (
                f"A name has letters, digits and, between them, hyphens: at most {LONGEST_NAME} of "
                "them in all."
            )
            raise ApiError(ErrorCode.INVALID_FEDERATION_NAME, text, text)
        if not request.simulation:
            text = "Only federations for simulations can be created: say --simulation."
            raise ApiError(ErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT, text, text)

        async def create(transaction: Transaction) -> bytes:
            created = await Federations(transaction).create(
                f"@{caller.account_name}/{name}", request.description[:_DESCRIPTION_LENGTH]
            )
            if created is None:
                raise ApiError(ErrorCode.FEDERATION_ALREADY_EXISTS, name)
            federation = self._to_wire(created, caller)
            return control.CreateFederationResponse(federation=federation).SerializeToString()

        answer = await once(self._database, caller.request_id, create)
        log.info("federation_created", federation=name, account=caller.account_id)
        return control.CreateFederationResponse.FromString(answer)

    async def archive_federation(
        self, request: control.ArchiveFederationRequest, caller: Caller
    ) -> control.ArchiveFederationResponse:
        """Have a federation take no more runs, and stop those that it has."""
        name = request.federation_name
        if not name:
            raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, type(request).__name__)
        found = await self._federations.open(name)
        if found.is_default:
            raise _unsupported(request)
        stopped: list[Finished] = []

        async def archive(transaction: Transaction) -> bytes:
            stopped.clear()
            await Federations(transaction).archive(found.name)
            tasks = Tasks(transaction)
            for run in await Runs(transaction).unfinished_in(found.name):
                finished = await tasks.finish(run.primary_task_id, SubStatus.STOPPED, "")
                stopped.extend([finished] if finished is not None else [])
            return b""

        await once(self._database, caller.request_id, archive)
        log.info("federation_archived", federation=found.name, account=caller.account_id)
        for finished in stopped:
            await self._lifecycle.task_finished(finished)
        return control.ArchiveFederationResponse()

    async def configure_simulation(
        self, request: control.ConfigureSimulationFederationRequest, caller: Caller
    ) -> control.ConfigureSimulationFederationResponse:
        """Keep how a federation simulates: what is said now, and what was said before of the rest."""
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
        """Refuse to decorate a federation."""
        if not request.federation_name:
            raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, type(request).__name__)
        raise _unsupported(request)

    async def move_node(self, request: Any, caller: Caller) -> NoReturn:
        """Refuse to put a node into a federation or out of it: all nodes are in the default one."""
        await self._federations.check_membership(request.federation_name)
        if not await self._nodes.is_owned_by(request.node_id, caller.account_id):
            raise ApiError(ErrorCode.NODE_NOT_FOUND_OR_NOT_OWNER, f"node {request.node_id}")
        raise _unsupported(request)

    async def invite(self, request: Any, caller: Caller) -> NoReturn:
        """Refuse to invite an account into a federation, or to follow an invitation."""
        if not request.federation_name:
            raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, "none is named")
        await self._federations.open(request.federation_name)
        raise _unsupported(request)

    def _to_wire(self, federation: Federation, caller: Caller) -> common.Federation:
        account = common.Account(id=caller.account_id, name=caller.account_name)
        return common.Federation(
            name=federation.name,
            description=visible_name(federation.description),
            members=[common.Member(account=account, role="owner")],
            member_count=1,
            archived=federation.archived,
            simulation=self._federations.is_simulation(federation),
        )


def _unsupported(request: Any) -> ApiError:
    return ApiError(ErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT, type(request).__name__)
