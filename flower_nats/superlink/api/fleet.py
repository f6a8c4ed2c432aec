"""The Fleet API about metadata: SuperNodes' calls about nodes, runs and FABs.

The gateway handles messages, objects and heartbeats without a superlink.
"""

from collections.abc import Mapping

from flower_nats.broker.hints import Hints
from flower_nats.broker.mailbox import Mailbox
from flower_nats.logs import get_logger
from flower_nats.model.caller import NO_ACCOUNT_ID, NO_ACCOUNT_NAME, Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.run import Run
from flower_nats.model.states import (
    MAX_HEARTBEAT_INTERVAL,
    MIN_HEARTBEAT_INTERVAL,
    NodeStatus,
    Status,
)
from flower_nats.model.visible import visible_name
from flower_nats.store.fabs import Fabs
from flower_nats.store.members import Members
from flower_nats.store.nodes import Nodes
from flower_nats.store.runs import Runs
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.convert import fab_to_wire, run_to_wire
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet

log = get_logger(__name__)


class FleetApi:
    """Serves SuperNodes. The gateway has verified the caller's key and node id on every call."""

    def __init__(
        self,
        nodes: Nodes,
        runs: Runs,
        fabs: Fabs,
        members: Members,
        hints: Hints,
        mailbox: Mailbox,
        *,
        supernode_auth: bool,
    ) -> None:
        self._nodes = nodes
        self._runs = runs
        self._fabs = fabs
        self._members = members
        self._hints = hints
        self._mailbox = mailbox
        self._supernode_auth = supernode_auth

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "RegisterNode": self.register_node,
            "ActivateNode": self.activate_node,
            "DeactivateNode": self.deactivate_node,
            "UnregisterNode": self.unregister_node,
            "GetRun": self.get_run,
            "GetFab": self.get_fab,
        }

    async def register_node(
        self, request: fleet.RegisterNodeFleetRequest, caller: Caller
    ) -> fleet.RegisterNodeFleetResponse:
        """Register the caller's key; a registered key gets its node again."""
        if self._only_registered(caller):
            raise ApiError(ErrorCode.SUPERNODE_REGISTRATION_DISABLED, "auth is enabled")
        key = _own_key(request.public_key, caller)
        node_id = await self._nodes.register(key, NO_ACCOUNT_ID, NO_ACCOUNT_NAME, 0.0)
        if node_id is None:
            known = await self._nodes.resolve(key)
            if known is None or known.has_left:
                reason = (
                    "An account has unregistered this key. Only that account may register the "
                    "key again."
                )
                raise ApiError(ErrorCode.PUBLIC_KEY_ALREADY_IN_USE, reason, reason)
            node_id = known.node_id
        log.info(
            "node_registered", node_id=node_id, address=caller.address, flwr=caller.client_version
        )
        await self._hints.node_changed(node_id)
        return fleet.RegisterNodeFleetResponse(node_id=node_id)

    async def activate_node(
        self, request: fleet.ActivateNodeRequest, caller: Caller
    ) -> fleet.ActivateNodeResponse:
        """Bring the caller's node online, even if it is online: it may have crashed and come back.

        A SuperNode keeps its state in memory, so instructions that it had confirmed and not
        answered are handed out again.
        """
        if not MIN_HEARTBEAT_INTERVAL <= request.heartbeat_interval <= MAX_HEARTBEAT_INTERVAL:
            raise ApiError(ErrorCode.INVALID_HEARTBEAT_INTERVAL, str(request.heartbeat_interval))
        key = _own_key(request.public_key, caller)
        node_id = await self._nodes.activate(
            key,
            request.heartbeat_interval,
            caller.gateway,
            only_registered=self._only_registered(caller),
            version=visible_name(caller.client_version),
            address=caller.address,
        )
        if node_id is None:
            raise ApiError(ErrorCode.NODE_ACTIVATION_FAILED, "the key is not registered")
        await self._mailbox.reoffer(node_id, caller.signed_at)
        log.info("node_activated", node_id=node_id, address=caller.address)
        return fleet.ActivateNodeResponse(node_id=node_id)

    async def deactivate_node(
        self, request: fleet.DeactivateNodeRequest, caller: Caller
    ) -> fleet.DeactivateNodeResponse:
        """Take the caller's node offline, unless another process has taken over.

        With two processes for one key, it is not known which process has confirmed an instruction.
        So all unanswered instructions are handed out again. A stock SuperNode ignores an
        instruction on which it already works.
        """
        node_id = _own_node(request.node_id, caller)
        status = await self._nodes.deactivate(node_id)
        if status is None:
            raise ApiError(ErrorCode.NODE_DEACTIVATION_FAILED, f"node {node_id} is not online")
        if status is NodeStatus.ONLINE:
            log.info("node_taken_over", node_id=node_id)
            await self._mailbox.reoffer(node_id, caller.signed_at)
        else:
            log.info("node_deactivated", node_id=node_id)
        return fleet.DeactivateNodeResponse()

    async def unregister_node(
        self, request: fleet.UnregisterNodeFleetRequest, caller: Caller
    ) -> fleet.UnregisterNodeFleetResponse:
        """Remove the caller's node for good; the caller may repeat this if the answer was lost."""
        if self._only_registered(caller):
            raise ApiError(ErrorCode.SUPERNODE_UNREGISTRATION_DISABLED, "auth is enabled")
        node_id = _own_node(request.node_id, caller)
        if not await self._nodes.unregister(node_id, NO_ACCOUNT_ID):
            node = await self._nodes.resolve(caller.public_key or b"")
            if node is None or not node.has_left:
                raise ApiError(ErrorCode.NODE_UNREGISTRATION_FAILED, f"node {node_id} is not there")
        log.info("node_unregistered", node_id=node_id)
        await self._hints.node_changed(node_id)
        return fleet.UnregisterNodeFleetResponse()

    async def get_run(self, request: common.GetRunRequest, caller: Caller) -> common.GetRunResponse:
        """Return a running run of one of the node's federations."""
        run = await self._running(request.run_id, caller, ErrorCode.GET_RUN_FAILED)
        return common.GetRunResponse(run=run_to_wire(run))

    async def get_fab(self, request: common.GetFabRequest, caller: Caller) -> common.GetFabResponse:
        """Return the FAB of a running run of one of the node's federations."""
        run = await self._running(request.run_id, caller, ErrorCode.GET_FAB_FAILED)
        fab = await self._fabs.get(run.fab_hash) if run.fab_hash == request.hash_str else None
        if fab is None:
            raise ApiError(
                ErrorCode.GET_FAB_FAILED, f"run {run.run_id} has no FAB {request.hash_str}"
            )
        return common.GetFabResponse(fab=fab_to_wire(fab))

    def _only_registered(self, caller: Caller) -> bool:
        """Whether we or the caller's gateway let in only nodes with a registered key."""
        return self._supernode_auth or caller.supernode_auth

    async def _running(self, run_id: int, caller: Caller, unknown: ErrorCode) -> Run:
        run = await self._runs.get(run_id)
        if run is None or not await self._members.has_node(run.federation, caller.node_id or 0):
            raise ApiError(unknown, f"there is no run {run_id}")
        if run.status is not Status.RUNNING:
            raise ApiError(ErrorCode.RUN_STATUS_NOT_ALLOWED, f"run {run_id} is {run.status}")
        return run


def _own_key(claimed: bytes, caller: Caller) -> bytes:
    """Return the key in the request; it must be the one that signed the request."""
    if claimed != caller.public_key:
        raise ApiError(ErrorCode.INVALID_SIGNATURE, "signed with another key than it names")
    return claimed


def _own_node(claimed: int, caller: Caller) -> int:
    if claimed != caller.node_id:
        raise ApiError(ErrorCode.INVALID_NODE_ID, f"node {caller.node_id} claims to be {claimed}")
    return claimed
