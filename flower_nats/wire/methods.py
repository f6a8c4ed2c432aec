"""Every RPC of the three gRPC APIs of flwr 1.33: its name and the messages it takes and gives."""

from dataclasses import dataclass

from google.protobuf.message import Message as ProtoMessage

from flower_nats.wire import appio_pb2 as appio
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet


@dataclass(frozen=True)
class Method:
    """One RPC: who serves it, what it takes, what it gives."""

    service: str
    name: str
    request: type[ProtoMessage]
    response: type[ProtoMessage]
    streams: bool = False
    """Whether the answer is a stream of `response`."""

    @property
    def path(self) -> str:
        """The gRPC path stock clients call."""
        return f"/flwr.proto.{self.service}/{self.name}"


def _methods(
    service: str, *triples: tuple[str, type[ProtoMessage], type[ProtoMessage]]
) -> tuple[Method, ...]:
    return tuple(
        Method(service, name, request, response, streams=name.startswith("Stream"))
        for name, request, response in triples
    )


FLEET = _methods(
    "Fleet",
    ("RegisterNode", fleet.RegisterNodeFleetRequest, fleet.RegisterNodeFleetResponse),
    ("ActivateNode", fleet.ActivateNodeRequest, fleet.ActivateNodeResponse),
    ("DeactivateNode", fleet.DeactivateNodeRequest, fleet.DeactivateNodeResponse),
    ("UnregisterNode", fleet.UnregisterNodeFleetRequest, fleet.UnregisterNodeFleetResponse),
    ("SendNodeHeartbeat", fleet.SendNodeHeartbeatRequest, fleet.SendNodeHeartbeatResponse),
    ("PullMessages", fleet.PullMessagesRequest, fleet.PullMessagesResponse),
    ("PushMessages", fleet.PushMessagesRequest, fleet.PushMessagesResponse),
    ("GetRun", common.GetRunRequest, common.GetRunResponse),
    ("GetFab", common.GetFabRequest, common.GetFabResponse),
    ("PushObject", common.PushObjectRequest, common.PushObjectResponse),
    ("PullObject", common.PullObjectRequest, common.PullObjectResponse),
    (
        "ConfirmMessageReceived",
        common.ConfirmMessageReceivedRequest,
        common.ConfirmMessageReceivedResponse,
    ),
)

SERVERAPPIO = _methods(
    "ServerAppIo",
    ("PullPendingTasks", appio.PullPendingTasksRequest, appio.PullPendingTasksResponse),
    ("ClaimTask", appio.ClaimTaskRequest, appio.ClaimTaskResponse),
    ("GetRun", common.GetRunRequest, common.GetRunResponse),
    ("SendTaskHeartbeat", appio.SendTaskHeartbeatRequest, appio.SendTaskHeartbeatResponse),
    ("PullTaskInput", appio.PullTaskInputRequest, appio.PullTaskInputResponse),
    ("PushTaskOutput", appio.PushTaskOutputRequest, appio.PushTaskOutputResponse),
    ("PushObject", common.PushObjectRequest, common.PushObjectResponse),
    ("PullObject", common.PullObjectRequest, common.PullObjectResponse),
    (
        "ConfirmMessageReceived",
        common.ConfirmMessageReceivedRequest,
        common.ConfirmMessageReceivedResponse,
    ),
    ("CreateTask", appio.CreateTaskRequest, appio.CreateTaskResponse),
    ("StartAutomation", control.StartAutomationRequest, control.StartAutomationResponse),
    ("PushTaskMessage", appio.PushTaskMessageRequest, appio.PushTaskMessageResponse),
    ("PushTaskEvents", appio.PushTaskEventsRequest, appio.PushTaskEventsResponse),
    ("PullTaskMessage", appio.PullTaskMessageRequest, appio.PullTaskMessageResponse),
    ("RecordTaskUsage", appio.RecordTaskUsageRequest, appio.RecordTaskUsageResponse),
    ("GetConnector", appio.GetConnectorRequest, appio.GetConnectorResponse),
    ("PushLogs", appio.PushLogsRequest, appio.PushLogsResponse),
    ("PushMessages", appio.PushAppMessagesRequest, appio.PushAppMessagesResponse),
    ("PullMessages", appio.PullAppMessagesRequest, appio.PullAppMessagesResponse),
    ("GetNodes", appio.GetNodesRequest, appio.GetNodesResponse),
)

_CONTROL_NAMES = (
    "StartRun", "StopRun", "StartAutomation", "ListAutomations", "StopAutomation", "StreamLogs",
    "ListRuns", "ListRunSeries", "GetRunSeries", "GetLoginDetails", "GetAuthTokens",
    "ListConnectors", "DisconnectConnector", "BeginConnectorOAuth", "CompleteConnectorOAuth",
    "PullArtifacts", "RegisterNode", "UnregisterNode", "ListNodes", "ListFederations",
    "ShowFederation", "CreateFederation", "ArchiveFederation", "AddNodeToFederation",
    "RemoveNodeFromFederation", "RemoveAccountFromFederation", "CreateInvitation",
    "ListInvitations", "AcceptInvitation", "RejectInvitation", "RevokeInvitation",
    "ConfigureSimulationFederation", "StreamRunEvents",
)  # fmt: skip

# Control is regular: FooBar takes FooBarRequest and gives FooBarResponse.
CONTROL = _methods(
    "Control",
    *(
        (name, getattr(control, f"{name}Request"), getattr(control, f"{name}Response"))
        for name in _CONTROL_NAMES
    ),
)

BY_NAME: dict[tuple[str, str], Method] = {
    (method.service, method.name): method for method in (*FLEET, *SERVERAPPIO, *CONTROL)
}
