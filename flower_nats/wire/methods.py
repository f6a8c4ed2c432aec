"""Every RPC of Flower's three APIs: its messages, its names on the wire, and its treatment.

This table is the only source: the transports, the authentication and the balancer's configuration
read it.
"""

import re
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from google.protobuf.message import Message as ProtoMessage

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime

_KIB, _MIB = 1024, 1024 * 1024

LONGEST_MESSAGE = 2**31 - 1
"""Bytes; the limit that stock sets on both sides (flwr 1.33 `supercore/grpc.py`)."""

SHORT_REQUEST = 64 * _KIB
"""Bytes of a request, unless its method allows more. Ids, keys and numbers need no more."""


ARTIFACTS_PATH = "/v1/control/artifacts"
"""The path of a run's results at a gateway, beside the calls of Control. `flwr pull` prints it."""


class CallerKind(Enum):
    """What proves who makes a call."""

    KEY = auto()
    """Only a SuperNode's key: the node need not be registered yet."""

    NODE = auto()
    """A SuperNode's key, and the id of its node."""

    SUPEREXEC = auto()
    """The secret that SuperExecs share with gateways, if there is one."""

    TASK = auto()
    """The token of a task."""

    ACCOUNT = auto()
    """The token of an account, if there are accounts."""

    ANYBODY = auto()
    """Nothing: the call is for clients that have no token yet."""


class Bulk(Enum):
    """Which half of a call may be large."""

    NEITHER = auto()
    REQUEST = auto()
    RESPONSE = auto()


@dataclass(frozen=True)
class Method:
    """One RPC."""

    api: str
    """`Fleet`, `Runtime` or `Control`."""

    name: str

    request: type[ProtoMessage]

    response: type[ProtoMessage]

    caller: CallerKind

    streams: bool = False
    """Whether the answer is a stream of `response`."""

    overlooks_empty: bool = False
    """Whether clients ignore an empty message in the stream, so that such messages may keep a quiet
    connection alive."""

    held: bool = False
    """Whether a gateway may hold the answer until there is something to say."""

    bulk: Bulk = Bulk.NEITHER
    """The part of a call that passes a gateway only a few at a time, which bounds its memory."""

    longest_request: int = SHORT_REQUEST
    """Bytes that a request may have."""

    farewell: bool = False
    """Whether an unregistered node, or a finished task, may still make this call. A process makes
    it while it ends, again if its gateway died before the answer, or from threads that still run.
    After a refusal stock interrupts itself, which hangs for ever in the exit handlers of a
    ServerApp."""

    tried_once: bool = False
    """Whether stock tries this call only once, and loses its content if it fails. Such a call is
    completed even if the caller's connection ends."""

    takes_long: bool = False
    """Whether a healthy superlink may need seconds for it. The superlink then says that it has the
    call in hand, so that no other superlink is asked for the same work."""

    grpc_services: tuple[str, ...] = field(default=(), kw_only=True)
    """Names of the gRPC service with this RPC, in the order of the versions of flwr."""

    @property
    def grpc_paths(self) -> tuple[str, ...]:
        """The gRPC paths that stock clients call."""
        return tuple(f"/flwr.proto.{service}/{self.name}" for service in self.grpc_services)

    @property
    def path(self) -> str:
        """The gRPC path of the oldest version of flwr that we serve."""
        return self.grpc_paths[0]

    @property
    def signed_path(self) -> str:
        """The name that a SuperExec signs over HTTP: the newest gRPC path (flwr 1.42
        `supercore/auth/superexec_http_interceptor.py`)."""
        return self.grpc_paths[-1]

    @property
    def http_path(self) -> str:
        """The path of the HTTP API (flwr 1.42 `supercore/protobuf/translation.py`)."""
        return f"/v1/{self.api.lower()}/{_KEBAB.sub('-', self.name).lower()}"


_KEBAB = re.compile(r"(?<=[a-z])(?=[A-Z])")

_GRPC_SERVICES = {
    "Fleet": ("Fleet",),
    # flwr 1.30 to 1.33, and 1.34.
    "Runtime": ("ServerAppIo", "Runtime"),
    "Control": ("Control",),
}


def _methods(
    api: str,
    caller: CallerKind,
    *triples: tuple[str, type[ProtoMessage], type[ProtoMessage]],
    **policies: dict[str, object],
) -> tuple[Method, ...]:
    """Return the methods of an API; `policies` has the differences, by method name."""
    services = _GRPC_SERVICES[api]
    methods = (
        Method(
            api,
            name,
            request,
            response,
            caller,
            streams=name.startswith("Stream"),
            grpc_services=services,
        )
        for name, request, response in triples
    )
    return tuple(replace(one, **policies.get(one.name, {})) for one in methods)  # type: ignore[arg-type]


FLEET = _methods(
    "Fleet",
    CallerKind.NODE,
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
    RegisterNode={"caller": CallerKind.KEY},
    ActivateNode={"caller": CallerKind.KEY},
    UnregisterNode={"farewell": True},
    PullMessages={"held": True},
    # The tree of a reply's objects: 70 bytes each, for at most 100,000 objects.
    PushMessages={"longest_request": 8 * _MIB},
    # Stock cuts arrays into objects of 20 MB at most, other records not.
    PushObject={"bulk": Bulk.REQUEST, "longest_request": 256 * _MIB},
    PullObject={"bulk": Bulk.RESPONSE, "held": True},
)

# Stock never calls these over gRPC, but SuperExecs sign their gRPC names.
_SINCE_RUNTIME: dict[str, object] = {"grpc_services": ("Runtime",)}

RUNTIME = _methods(
    "Runtime",
    CallerKind.TASK,
    ("PullPendingTasks", runtime.PullPendingTasksRequest, runtime.PullPendingTasksResponse),
    ("ClaimTask", runtime.ClaimTaskRequest, runtime.ClaimTaskResponse),
    ("AcquireTask", runtime.AcquireTaskRequest, runtime.AcquireTaskResponse),
    ("GetRun", common.GetRunRequest, common.GetRunResponse),
    ("SendTaskHeartbeat", runtime.SendTaskHeartbeatRequest, runtime.SendTaskHeartbeatResponse),
    ("PullTaskInput", runtime.PullTaskInputRequest, runtime.PullTaskInputResponse),
    ("PushTaskOutput", runtime.PushTaskOutputRequest, runtime.PushTaskOutputResponse),
    ("PushObject", common.PushObjectRequest, common.PushObjectResponse),
    ("PullObject", common.PullObjectRequest, common.PullObjectResponse),
    (
        "ConfirmMessageReceived",
        common.ConfirmMessageReceivedRequest,
        common.ConfirmMessageReceivedResponse,
    ),
    ("CreateTask", runtime.CreateTaskRequest, runtime.CreateTaskResponse),
    ("StartAutomation", control.StartAutomationRequest, control.StartAutomationResponse),
    ("PushTaskMessage", runtime.PushTaskMessageRequest, runtime.PushTaskMessageResponse),
    ("PushTaskEvents", runtime.PushTaskEventsRequest, runtime.PushTaskEventsResponse),
    ("PullTaskMessage", runtime.PullTaskMessageRequest, runtime.PullTaskMessageResponse),
    (
        "GetRunSeriesEvents",
        runtime.GetRunSeriesEventsRequest,
        runtime.GetRunSeriesEventsResponse,
    ),
    (
        "GetCompactedContexts",
        runtime.GetCompactedContextsRequest,
        runtime.GetCompactedContextsResponse,
    ),
    (
        "PutCompactedContext",
        runtime.PutCompactedContextRequest,
        runtime.PutCompactedContextResponse,
    ),
    ("RecordTaskUsage", runtime.RecordTaskUsageRequest, runtime.RecordTaskUsageResponse),
    ("GetConnector", runtime.GetConnectorRequest, runtime.GetConnectorResponse),
    ("PushLogs", runtime.PushLogsRequest, runtime.PushLogsResponse),
    ("PushMessages", runtime.PushAppMessagesRequest, runtime.PushAppMessagesResponse),
    ("PullMessages", runtime.PullAppMessagesRequest, runtime.PullAppMessagesResponse),
    ("GetNodes", runtime.GetNodesRequest, runtime.GetNodesResponse),
    PullPendingTasks={"caller": CallerKind.SUPEREXEC, "held": True},
    ClaimTask={"caller": CallerKind.SUPEREXEC},
    AcquireTask={"caller": CallerKind.SUPEREXEC, "held": True, **_SINCE_RUNTIME},
    GetRun={"caller": CallerKind.SUPEREXEC},
    GetRunSeriesEvents=_SINCE_RUNTIME,
    GetCompactedContexts=_SINCE_RUNTIME,
    PutCompactedContext={"longest_request": 16 * _MIB, **_SINCE_RUNTIME},
    SendTaskHeartbeat={"farewell": True},
    PushLogs={"farewell": True, "longest_request": 64 * _MIB},
    # An app may put any data into its context.
    PushTaskOutput={"farewell": True, "tried_once": True, "longest_request": LONGEST_MESSAGE},
    PushTaskMessage={"longest_request": 16 * _MIB},
    PushTaskEvents={"longest_request": 16 * _MIB},
    StartAutomation={"longest_request": 11 * _MIB},
    # A whole round at once: the trees of its instructions, and later the ids of all instructions.
    PushMessages={"longest_request": 256 * _MIB},
    PullMessages={"held": True, "longest_request": 16 * _MIB},
    PushObject={"bulk": Bulk.REQUEST, "longest_request": LONGEST_MESSAGE},
    PullObject={"bulk": Bulk.RESPONSE, "held": True},
)

_CONTROL_NAMES = (
    "StartRun", "StopRun", "StartAutomation", "ListAutomations", "StopAutomation", "StreamLogs",
    "ListRuns", "ListRunSeries", "GetRunSeries", "UpdateRunSeriesDescription",
    "ListRunSeriesEvents", "GetLoginDetails", "GetAuthTokens", "RefreshAuthTokens",
    "ListConnectors", "DisconnectConnector", "BeginConnectorOAuth", "CompleteConnectorOAuth",
    "PullArtifacts", "RegisterNode", "UnregisterNode", "ListNodes", "ListApps",
    "ListAppAssociations", "AddApp", "RemoveApp", "ListFederations", "ShowFederation",
    "SetFederationIcon", "CreateFederation", "ArchiveFederation", "AddNodeToFederation",
    "RemoveNodeFromFederation", "RemoveAccountFromFederation", "CreateInvitation",
    "ListInvitations", "AcceptInvitation", "RejectInvitation", "RevokeInvitation",
    "ConfigureSimulationFederation", "StreamRunEvents",
)  # fmt: skip

# The superlink may have to ask an issuer.
_LEADS_TO_A_TOKEN: dict[str, object] = {"caller": CallerKind.ANYBODY, "takes_long": True}

# Control is regular: FooBar takes FooBarRequest and gives FooBarResponse.
CONTROL = _methods(
    "Control",
    CallerKind.ACCOUNT,
    *(
        (name, getattr(control, f"{name}Request"), getattr(control, f"{name}Response"))
        for name in _CONTROL_NAMES
    ),
    GetLoginDetails=_LEADS_TO_A_TOKEN,
    GetAuthTokens=_LEADS_TO_A_TOKEN,
    RefreshAuthTokens=_LEADS_TO_A_TOKEN,
    StreamLogs={"overlooks_empty": True},
    # A FAB, of 10 MiB at most, and the options of a run.
    StartRun={"longest_request": 11 * _MIB, "takes_long": True},
    StartAutomation={"longest_request": 11 * _MIB},
)

BY_NAME: dict[tuple[str, str], Method] = {
    (method.api, method.name): method for method in (*FLEET, *RUNTIME, *CONTROL)
}
