"""The Control API about nodes, and its answers about objects that do not exist here."""

from collections.abc import Mapping

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flower_nats.broker.hints import Hints
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.location import check_location
from flower_nats.model.node import LONGEST_NAME
from flower_nats.model.node_key import is_node_key
from flower_nats.store.audit import note_object
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.idempotency import once
from flower_nats.store.nodes import Nodes
from flower_nats.superlink.codecs import ProtoHandler, refuse
from flower_nats.superlink.convert import node_to_wire, now_iso
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

_DEFAULT_HEARTBEAT_INTERVAL = 30.0
"""Seconds; the heartbeat interval of a node that the CLI registered, until it comes online."""

_REFUSALS: Mapping[str, ProtoHandler] = {
    "StartAutomation": refuse(ErrorCode.INVALID_AUTOMATION_REQUEST),
    "DisconnectConnector": refuse(ErrorCode.CONNECTOR_NOT_FOUND),
    "BeginConnectorOAuth": refuse(ErrorCode.CONNECTOR_NOT_FOUND),
    "CompleteConnectorOAuth": refuse(ErrorCode.CONNECTOR_NOT_FOUND),
}


class ControlApi:
    """Serves the CLI's commands about nodes."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._nodes = Nodes(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC that is served or refused here."""
        return {
            **_REFUSALS,
            "RegisterNode": self.register_node,
            "UnregisterNode": self.unregister_node,
            "ListNodes": self.list_nodes,
            "ListAutomations": self.list_automations,
            "StopAutomation": self.stop_automation,
            "ListConnectors": self.list_connectors,
        }

    async def register_node(
        self, request: control.RegisterNodeRequest, caller: Caller
    ) -> control.RegisterNodeResponse:
        """Register the key of a SuperNode before it connects."""
        check_key(request.public_key)
        location = request.location if request.HasField("location") else None
        if location is not None:
            _check_location(location)
        if len(request.name) > LONGEST_NAME:
            text = f"The name of a SuperNode has at most {LONGEST_NAME} characters."
            raise ApiError(ErrorCode.MALFORMED_REQUEST, text, text)

        async def register(transaction: Transaction) -> bytes:
            node_id = await Nodes(transaction).register(
                request.public_key,
                caller.account_id,
                caller.account_name,
                _DEFAULT_HEARTBEAT_INTERVAL,
                by_account=True,
                name=request.name if request.HasField("name") else None,
                location=location,
            )
            if node_id is None:
                raise ApiError(ErrorCode.PUBLIC_KEY_ALREADY_IN_USE, "registered before")
            note_object(f"node {node_id}")
            return control.RegisterNodeResponse(node_id=node_id).SerializeToString()

        answer = await once(self._database, caller.request_id, register)
        response = control.RegisterNodeResponse.FromString(answer)
        log.info("node_registered", node_id=response.node_id, account=caller.account_id)
        await self._hints.node_changed(response.node_id)
        return response

    async def unregister_node(
        self, request: control.UnregisterNodeRequest, caller: Caller
    ) -> control.UnregisterNodeResponse:
        """Remove a node for good."""

        async def unregister(transaction: Transaction) -> bytes:
            if not await Nodes(transaction).unregister(request.node_id, caller.sees):
                raise ApiError(ErrorCode.NODE_NOT_FOUND, f"node {request.node_id} is not there")
            return b""

        await once(self._database, caller.request_id, unregister)
        log.info("node_unregistered", node_id=request.node_id, account=caller.account_id)
        await self._hints.node_changed(request.node_id)
        return control.UnregisterNodeResponse()

    async def list_nodes(
        self, request: control.ListNodesRequest, caller: Caller
    ) -> control.ListNodesResponse:
        """Return the account's nodes, including unregistered ones."""
        nodes = await self._nodes.owned_by(caller.sees)
        return control.ListNodesResponse(
            nodes_info=[node_to_wire(node) for node in nodes], now=now_iso()
        )

    async def list_automations(
        self, request: control.ListAutomationsRequest, caller: Caller
    ) -> control.ListAutomationsResponse:
        """There are none."""
        return control.ListAutomationsResponse()

    async def stop_automation(
        self, request: control.StopAutomationRequest, caller: Caller
    ) -> control.StopAutomationResponse:
        """Do nothing, like stock for an unknown automation."""
        return control.StopAutomationResponse()

    async def list_connectors(
        self, request: control.ListConnectorsRequest, caller: Caller
    ) -> control.ListConnectorsResponse:
        """There are none."""
        return control.ListConnectorsResponse()


def check_key(pem: bytes) -> None:
    """Check that SuperNodes can sign with a key."""
    if not is_node_key(pem):
        text = (
            "The key must be on the curve P-256, P-384 or P-521, in the form that `flwr "
            "supernode register` sends."
        )
        raise ApiError(ErrorCode.PUBLIC_KEY_NOT_VALID, "not spelled as stock does", text)
    try:
        load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ApiError(ErrorCode.PUBLIC_KEY_NOT_VALID, str(exc)) from exc


def _check_location(location: str) -> None:
    try:
        check_location(location)
    except ValueError as exc:
        raise ApiError(ErrorCode.INVALID_SUPERNODE_LOCATION, location[:80], str(exc)) from exc
