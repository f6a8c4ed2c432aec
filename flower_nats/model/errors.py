"""Every refusal of the runtime, and its form for callers.

Code raises `ApiError(code, detail)`: `detail` is for our log, never for the caller. One table,
`CATALOGUE`, says what the caller sees, over gRPC and over HTTP. Codes below 10,000 are Flower's own
(flwr 1.42 `supercore/error/catalog.py`; none has changed since its first version). Stock clients
know them by number, and the CLI prints Flower's sentence. Codes from 10,000 are ours, for refusals
that have no number in Flower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from flower_nats.model.states import MAX_HEARTBEAT_INTERVAL, MIN_HEARTBEAT_INTERVAL


class Outcome(Enum):
    """How a call ended: the name of the gRPC status, and the number of the HTTP status for it."""

    INVALID_ARGUMENT = 400
    UNAUTHENTICATED = 401
    PERMISSION_DENIED = 403
    NOT_FOUND = 404
    ALREADY_EXISTS = 409
    FAILED_PRECONDITION = 412
    RESOURCE_EXHAUSTED = 413
    INTERNAL = 500
    UNIMPLEMENTED = 501
    UNAVAILABLE = 503
    # HTTP has no status for the end of a long answer. 504 makes the client call again.
    DEADLINE_EXCEEDED = 504


class ErrorCode(IntEnum):
    """Number of a refusal; see the module's docstring for the two ranges.

    Flower's codes have Flower's names, without the prefix of the API (`FLEET_`, `RUNTIME_`).
    """

    NO_FEDERATION_MANAGEMENT_SUPPORT = 1
    FEDERATION_NOT_FOUND_OR_NO_PERMISSION = 2
    ACCOUNT_ALREADY_MEMBER = 3
    FEDERATION_ALREADY_EXISTS = 4
    INVITE_ALREADY_EXISTS = 5
    ACCOUNTS_NOT_FOUND = 6
    FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE = 7
    ACCOUNT_NOT_A_MEMBER = 8
    NO_PERMISSIONS = 9
    FORBIDDEN_ACTION = 10
    SUPERNODE_ALREADY_IN_FEDERATION = 11
    FEDERATION_NOT_SPECIFIED = 12
    ENTITLEMENT_ERROR = 13
    FAILED_TO_CREATE_RUN = 14
    INVALID_RUN_CONFIG = 15
    RUN_ID_NOT_FOUND = 16
    RUN_SERIES_ID_NOT_FOUND = 17
    RUN_ALREADY_FINISHED = 18
    NO_ACCOUNT_AUTH = 19
    NO_ARTIFACT_PROVIDER = 20
    PULL_UNFINISHED_RUN = 21
    PUBLIC_KEY_NOT_VALID = 22
    PUBLIC_KEY_ALREADY_IN_USE = 23
    NODE_NOT_FOUND = 24
    FEDERATION_NOT_FOUND = 25
    FEDERATION_NOT_FOUND_OR_NOT_MEMBER = 26
    INVALID_FEDERATION_NAME = 27
    NODE_NOT_FOUND_OR_NOT_OWNER = 28
    ACCOUNT_INFO_NOT_FOUND = 29
    RUN_NOT_ASSOCIATED_WITH_ACCOUNT = 30
    RUN_ID_NOT_BELONG_TO_ACCOUNT = 31
    UNSUPPORTED_FAB_HUB_TRANSPORT = 32
    INVALID_APP_SPEC = 33
    FAB_DOWNLOAD_LINK_FAILURE = 34
    FAB_DOWNLOAD_FAILURE = 35
    ACCOUNT_AUTHENTICATION_FAILED = 36
    ACCOUNT_AUTHENTICATION_NOT_INITIALIZED = 37
    INVALID_CONNECTOR_REQUEST = 38
    CONNECTOR_NOT_FOUND = 39
    CONNECTOR_FAILURE = 40
    LICENSE_CHECK_FAILED = 41
    INVALID_AUTOMATION_REQUEST = 42
    INVALID_RUN_SERIES_DESCRIPTION = 43
    AGENTAPP_USER_PROMPT_REQUIRED = 44
    INVALID_SUPERNODE_LOCATION = 45
    VERSION_INCOMPATIBLE = 1001
    UNSUPPORTED_CONTENT_TYPE = 1002
    INVALID_PROTOBUF_PAYLOAD = 1003
    INVALID_HANDLER_RESPONSE = 1004
    LINKSTATE_NOT_INITIALIZED = 1005
    INVALID_PROTOBUF_REQUEST = 1006
    INVALID_PROTOBUF_RESPONSE = 1007
    AUTHENTICATION_FAILED = 1008
    NODESTATE_NOT_INITIALIZED = 1009
    API_TYPE_NOT_INITIALIZED = 1010
    SUPERNODE_REGISTRATION_DISABLED = 2001
    SUPERNODE_UNREGISTRATION_DISABLED = 2002
    INVALID_HEARTBEAT_INTERVAL = 2003
    NODE_ACTIVATION_FAILED = 2004
    NODE_DEACTIVATION_FAILED = 2005
    NODE_UNREGISTRATION_FAILED = 2006
    RUN_STATUS_NOT_ALLOWED = 2007
    GET_RUN_FAILED = 2008
    GET_FAB_FAILED = 2009
    CONNECTOR_CREDENTIALS_NOT_AVAILABLE = 3001
    TASK_START_FAILED = 3002
    AUTOMATION_CREATION_NOT_ALLOWED = 3003
    UNEXPECTED_NODE_ID = 3004
    ENDPOINT_UNAVAILABLE = 3005
    TASK_CREATION_FAILED = 3006
    TASK_CREATION_NOT_ALLOWED = 3007
    INVALID_TASK_CREATION_REQUEST = 3008
    INVALID_TASK_MESSAGE = 3009
    CONNECTOR_NOT_AVAILABLE = 3010
    RUN_SERIES_CONTEXT_NOT_FOUND = 3011
    FAB_NOT_FOUND = 3012
    INVALID_MESSAGE_COUNT = 3013
    MESSAGE_RUN_ID_MISMATCH = 3014
    INVALID_COMPACTED_CONTEXT_REQUEST = 3015
    COMPACTED_CONTEXT_ALREADY_EXISTS = 3016

    UNAVAILABLE = 10_000
    MALFORMED_REQUEST = 10_002
    STREAM_ENDS = 10_004
    BODY_TOO_LONG = 10_005
    OVERLOADED = 10_006
    BODY_TOO_SLOW = 10_007
    MISSING_AUTH_METADATA = 10_010
    INVALID_SIGNATURE = 10_011
    INVALID_TIMESTAMP = 10_012
    INVALID_NODE_ID = 10_013
    INSTRUCTION_WITHDRAWN = 10_030
    NOTHING_STORED = 10_040
    ISSUER_AWAY = 10_050


@dataclass(frozen=True)
class ErrorSpec:
    """What a caller sees of one error code."""

    outcome: Outcome
    """The outcome to which stock clients react properly: they retry UNAVAILABLE, take
    PERMISSION_DENIED for a run that is not running, end at UNAUTHENTICATED, and crash at most
    others."""

    message: str
    """Public text: Flower's own sentence if the code is Flower's."""

    remedy: str | None = None
    """Further details for the caller, unless the error itself has some."""

    unusual_http: int | None = None
    """The HTTP status, if it differs from the one of `outcome`."""

    http_headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer over HTTP."""

    @property
    def http_status(self) -> int:
        """The number of the HTTP status."""
        return self.unusual_http or self.outcome.value


_O = Outcome

CATALOGUE: dict[ErrorCode, ErrorSpec] = {
    ErrorCode.NO_FEDERATION_MANAGEMENT_SUPPORT: ErrorSpec(
        _O.UNIMPLEMENTED, "SuperLink does not support federation management."
    ),
    ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION: ErrorSpec(
        _O.NOT_FOUND,
        "Federation not found, archived, or you cannot perform this action.",
        "`flwr federation list` shows the ones you can use.",
    ),
    ErrorCode.ACCOUNT_ALREADY_MEMBER: ErrorSpec(
        _O.FAILED_PRECONDITION, "Account is already a member of the federation."
    ),
    ErrorCode.FEDERATION_ALREADY_EXISTS: ErrorSpec(
        _O.ALREADY_EXISTS, "Federation already exists or it has been archived."
    ),
    ErrorCode.INVITE_ALREADY_EXISTS: ErrorSpec(
        _O.ALREADY_EXISTS, "A pending invitation already exists for this account in the federation."
    ),
    ErrorCode.ACCOUNTS_NOT_FOUND: ErrorSpec(
        _O.NOT_FOUND, "One or more specified accounts were not found."
    ),
    ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE: ErrorSpec(
        _O.NOT_FOUND,
        "Federation does not exist, has been archived, or no pending invitation was found.",
    ),
    ErrorCode.ACCOUNT_NOT_A_MEMBER: ErrorSpec(
        _O.FAILED_PRECONDITION, "Account is not a member of the federation."
    ),
    ErrorCode.NO_PERMISSIONS: ErrorSpec(
        _O.PERMISSION_DENIED, "You do not have permission to perform this action."
    ),
    ErrorCode.FORBIDDEN_ACTION: ErrorSpec(
        _O.FAILED_PRECONDITION, "This action cannot be performed."
    ),
    ErrorCode.SUPERNODE_ALREADY_IN_FEDERATION: ErrorSpec(
        _O.FAILED_PRECONDITION, "The SuperNode is already part of the federation."
    ),
    ErrorCode.FEDERATION_NOT_SPECIFIED: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "No federation specified. You must specify a federation to perform this action.",
    ),
    ErrorCode.ENTITLEMENT_ERROR: ErrorSpec(_O.PERMISSION_DENIED, "Entitlement error."),
    ErrorCode.FAILED_TO_CREATE_RUN: ErrorSpec(
        _O.INTERNAL, "Failed to create or initialize the run."
    ),
    ErrorCode.INVALID_RUN_CONFIG: ErrorSpec(_O.FAILED_PRECONDITION, "Invalid run configuration."),
    ErrorCode.RUN_ID_NOT_FOUND: ErrorSpec(_O.NOT_FOUND, "Run ID not found."),
    ErrorCode.RUN_SERIES_ID_NOT_FOUND: ErrorSpec(_O.NOT_FOUND, "Run series ID not found."),
    ErrorCode.RUN_ALREADY_FINISHED: ErrorSpec(_O.FAILED_PRECONDITION, "Run is already finished."),
    ErrorCode.NO_ACCOUNT_AUTH: ErrorSpec(
        _O.UNIMPLEMENTED,
        "ControlServicer initialized without account authentication.",
        "No login is needed here.",
    ),
    ErrorCode.NO_ARTIFACT_PROVIDER: ErrorSpec(
        _O.UNIMPLEMENTED, "ControlServicer initialized without artifact provider."
    ),
    ErrorCode.PULL_UNFINISHED_RUN: ErrorSpec(
        _O.FAILED_PRECONDITION, "Cannot pull artifacts for an unfinished run."
    ),
    ErrorCode.PUBLIC_KEY_NOT_VALID: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "The provided public key is not valid.",
        "The key must be a NIST elliptic-curve key, as `ssh-keygen -t ecdsa` makes it.",
    ),
    ErrorCode.PUBLIC_KEY_ALREADY_IN_USE: ErrorSpec(
        _O.FAILED_PRECONDITION, "Public key already in use."
    ),
    ErrorCode.NODE_NOT_FOUND: ErrorSpec(_O.NOT_FOUND, "Node ID not found for account."),
    ErrorCode.FEDERATION_NOT_FOUND: ErrorSpec(_O.FAILED_PRECONDITION, "Federation does not exist."),
    ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER: ErrorSpec(
        _O.FAILED_PRECONDITION, "Federation does not exist or you are not a member of it."
    ),
    ErrorCode.INVALID_FEDERATION_NAME: ErrorSpec(
        _O.FAILED_PRECONDITION, "Invalid federation name."
    ),
    ErrorCode.NODE_NOT_FOUND_OR_NOT_OWNER: ErrorSpec(
        _O.FAILED_PRECONDITION, "Node not found or you are not its owner."
    ),
    ErrorCode.ACCOUNT_INFO_NOT_FOUND: ErrorSpec(
        _O.PERMISSION_DENIED, "Failed to fetch the account information."
    ),
    ErrorCode.RUN_NOT_ASSOCIATED_WITH_ACCOUNT: ErrorSpec(
        _O.PERMISSION_DENIED, "Run is not associated with an account."
    ),
    ErrorCode.RUN_ID_NOT_BELONG_TO_ACCOUNT: ErrorSpec(
        _O.PERMISSION_DENIED, "Run ID does not belong to the account."
    ),
    ErrorCode.UNSUPPORTED_FAB_HUB_TRANSPORT: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "The selected SuperLink transport type is not supported for connecting to Flower Hub.",
        "This SuperLink does not fetch apps from Flower Hub: download the app and give `flwr run` its "
        "folder.",
    ),
    ErrorCode.INVALID_APP_SPEC: ErrorSpec(_O.FAILED_PRECONDITION, "Invalid app specification."),
    ErrorCode.FAB_DOWNLOAD_LINK_FAILURE: ErrorSpec(
        _O.FAILED_PRECONDITION, "Failed to request FAB download link."
    ),
    ErrorCode.FAB_DOWNLOAD_FAILURE: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "FAB download failed.",
        "The SuperLink does not have the app's FAB. Submit the run with the content of the FAB.",
    ),
    ErrorCode.ACCOUNT_AUTHENTICATION_FAILED: ErrorSpec(
        _O.UNAUTHENTICATED, "Authentication failed.", http_headers={"WWW-Authenticate": "Bearer"}
    ),
    ErrorCode.ACCOUNT_AUTHENTICATION_NOT_INITIALIZED: ErrorSpec(
        _O.UNAVAILABLE, "Authentication is not initialized."
    ),
    ErrorCode.INVALID_CONNECTOR_REQUEST: ErrorSpec(
        _O.INVALID_ARGUMENT, "Invalid connector request."
    ),
    ErrorCode.CONNECTOR_NOT_FOUND: ErrorSpec(_O.NOT_FOUND, "Connector not found."),
    ErrorCode.CONNECTOR_FAILURE: ErrorSpec(_O.INTERNAL, "Connector operation failed."),
    ErrorCode.LICENSE_CHECK_FAILED: ErrorSpec(
        _O.PERMISSION_DENIED, "License check failed. Please contact the SuperLink administrator."
    ),
    ErrorCode.INVALID_AUTOMATION_REQUEST: ErrorSpec(
        _O.INVALID_ARGUMENT,
        "Invalid automation request.",
        "This SuperLink has no automations: start each run with `flwr run`.",
    ),
    ErrorCode.INVALID_RUN_SERIES_DESCRIPTION: ErrorSpec(
        _O.INVALID_ARGUMENT, "Invalid run series description."
    ),
    ErrorCode.AGENTAPP_USER_PROMPT_REQUIRED: ErrorSpec(
        _O.INVALID_ARGUMENT, "A user prompt is required to start an AgentApp run."
    ),
    ErrorCode.INVALID_SUPERNODE_LOCATION: ErrorSpec(
        _O.INVALID_ARGUMENT, "Invalid SuperNode location."
    ),
    ErrorCode.VERSION_INCOMPATIBLE: ErrorSpec(
        _O.FAILED_PRECONDITION, "Runtime version compatibility check failed."
    ),
    ErrorCode.UNSUPPORTED_CONTENT_TYPE: ErrorSpec(
        _O.INVALID_ARGUMENT, "Unsupported Content-Type.", unusual_http=415
    ),
    ErrorCode.INVALID_PROTOBUF_PAYLOAD: ErrorSpec(_O.INVALID_ARGUMENT, "Invalid protobuf payload."),
    ErrorCode.INVALID_HANDLER_RESPONSE: ErrorSpec(
        _O.INTERNAL, "Invalid response returned from handler."
    ),
    ErrorCode.LINKSTATE_NOT_INITIALIZED: ErrorSpec(_O.UNAVAILABLE, "LinkState is not initialized."),
    ErrorCode.INVALID_PROTOBUF_REQUEST: ErrorSpec(_O.INTERNAL, "Invalid protobuf request."),
    ErrorCode.INVALID_PROTOBUF_RESPONSE: ErrorSpec(_O.INTERNAL, "Invalid protobuf response."),
    ErrorCode.AUTHENTICATION_FAILED: ErrorSpec(_O.UNAUTHENTICATED, "Authentication failed."),
    ErrorCode.NODESTATE_NOT_INITIALIZED: ErrorSpec(_O.UNAVAILABLE, "NodeState is not initialized."),
    ErrorCode.API_TYPE_NOT_INITIALIZED: ErrorSpec(
        _O.UNAVAILABLE, "Fleet API type is not initialized."
    ),
    ErrorCode.SUPERNODE_REGISTRATION_DISABLED: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "SuperNode authentication is enabled. All SuperNodes must be registered via the CLI.",
        "Register the key with `flwr supernode register`, then start the SuperNode with that key.",
    ),
    ErrorCode.SUPERNODE_UNREGISTRATION_DISABLED: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "SuperNode authentication is enabled. All SuperNodes must be unregistered via the CLI.",
        "Use `flwr supernode unregister`.",
    ),
    ErrorCode.INVALID_HEARTBEAT_INTERVAL: ErrorSpec(
        _O.INVALID_ARGUMENT,
        "Invalid heartbeat interval.",
        f"The interval must be from {MIN_HEARTBEAT_INTERVAL:g} to {MAX_HEARTBEAT_INTERVAL:g} "
        "seconds.",
    ),
    ErrorCode.NODE_ACTIVATION_FAILED: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "Failed to activate SuperNode.",
        "The key of this SuperNode is not registered here. Register it with `flwr supernode register`, "
        "then start the SuperNode again.",
    ),
    ErrorCode.NODE_DEACTIVATION_FAILED: ErrorSpec(
        _O.FAILED_PRECONDITION, "Failed to deactivate SuperNode.", "The SuperNode is not online."
    ),
    ErrorCode.NODE_UNREGISTRATION_FAILED: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "Failed to unregister SuperNode.",
        "The SuperNode is not registered.",
    ),
    ErrorCode.RUN_STATUS_NOT_ALLOWED: ErrorSpec(
        _O.PERMISSION_DENIED, "The current run status does not allow this Fleet API operation."
    ),
    ErrorCode.GET_RUN_FAILED: ErrorSpec(_O.PERMISSION_DENIED, "Failed to get run."),
    ErrorCode.GET_FAB_FAILED: ErrorSpec(_O.PERMISSION_DENIED, "Failed to get FAB."),
    ErrorCode.CONNECTOR_CREDENTIALS_NOT_AVAILABLE: ErrorSpec(
        _O.PERMISSION_DENIED, "Connector credentials are not available to this task."
    ),
    ErrorCode.TASK_START_FAILED: ErrorSpec(_O.FAILED_PRECONDITION, "Failed to start task."),
    ErrorCode.AUTOMATION_CREATION_NOT_ALLOWED: ErrorSpec(
        _O.PERMISSION_DENIED, "Only AgentApp and ServerApp tasks can create automations."
    ),
    ErrorCode.UNEXPECTED_NODE_ID: ErrorSpec(_O.FAILED_PRECONDITION, "Unexpected node ID."),
    ErrorCode.ENDPOINT_UNAVAILABLE: ErrorSpec(
        _O.PERMISSION_DENIED,
        "Some Runtime API endpoints are only available for Deployment Runtime runs.",
    ),
    ErrorCode.TASK_CREATION_FAILED: ErrorSpec(_O.INTERNAL, "Failed to create task."),
    ErrorCode.TASK_CREATION_NOT_ALLOWED: ErrorSpec(
        _O.PERMISSION_DENIED, "Task creation is not allowed."
    ),
    ErrorCode.INVALID_TASK_CREATION_REQUEST: ErrorSpec(
        _O.FAILED_PRECONDITION, "Invalid task creation request."
    ),
    ErrorCode.INVALID_TASK_MESSAGE: ErrorSpec(_O.FAILED_PRECONDITION, "Invalid task message."),
    ErrorCode.CONNECTOR_NOT_AVAILABLE: ErrorSpec(
        _O.PERMISSION_DENIED, "Connector is not available to this run."
    ),
    ErrorCode.RUN_SERIES_CONTEXT_NOT_FOUND: ErrorSpec(
        _O.NOT_FOUND, "Run series context not found."
    ),
    ErrorCode.FAB_NOT_FOUND: ErrorSpec(_O.NOT_FOUND, "FAB not found."),
    ErrorCode.INVALID_MESSAGE_COUNT: ErrorSpec(
        _O.INVALID_ARGUMENT, "Invalid number of messages or message object trees."
    ),
    ErrorCode.MESSAGE_RUN_ID_MISMATCH: ErrorSpec(
        _O.PERMISSION_DENIED, "Message run ID does not match the authenticated task."
    ),
    ErrorCode.INVALID_COMPACTED_CONTEXT_REQUEST: ErrorSpec(
        _O.INVALID_ARGUMENT, "Invalid compacted context request."
    ),
    ErrorCode.COMPACTED_CONTEXT_ALREADY_EXISTS: ErrorSpec(
        _O.ALREADY_EXISTS, "Compacted context already exists for this event in the series."
    ),
    ErrorCode.UNAVAILABLE: ErrorSpec(
        _O.UNAVAILABLE, "The SuperLink cannot answer at the moment. Try again."
    ),
    ErrorCode.MALFORMED_REQUEST: ErrorSpec(_O.INVALID_ARGUMENT, "Malformed request."),
    ErrorCode.STREAM_ENDS: ErrorSpec(
        _O.DEADLINE_EXCEEDED,
        "The stream ends here, and the run goes on. Call again from the last position.",
    ),
    ErrorCode.BODY_TOO_LONG: ErrorSpec(_O.RESOURCE_EXHAUSTED, "The request is too long."),
    ErrorCode.BODY_TOO_SLOW: ErrorSpec(
        _O.UNAVAILABLE, "The request stopped before it was complete. Try again."
    ),
    ErrorCode.OVERLOADED: ErrorSpec(
        _O.UNAVAILABLE,
        "The SuperLink is serving as many requests as it can. Try again.",
        "If this lasts, the operator can add gateways. Their log says which limit was reached.",
    ),
    ErrorCode.MISSING_AUTH_METADATA: ErrorSpec(
        _O.UNAUTHENTICATED, "Missing authentication metadata"
    ),
    ErrorCode.INVALID_SIGNATURE: ErrorSpec(_O.UNAUTHENTICATED, "Invalid signature"),
    ErrorCode.INVALID_TIMESTAMP: ErrorSpec(_O.UNAUTHENTICATED, "Invalid timestamp"),
    ErrorCode.INVALID_NODE_ID: ErrorSpec(_O.UNAUTHENTICATED, "Invalid node ID"),
    # Not PERMISSION_DENIED: a stock SuperNode that gets it while it receives a message has begun to
    # start a ClientApp. That ClientApp would then wait an hour for the message's objects.
    ErrorCode.INSTRUCTION_WITHDRAWN: ErrorSpec(
        _O.FAILED_PRECONDITION, "The run is not running: its messages are withdrawn."
    ),
    # Not UNAVAILABLE: for that, `flwr run` shows no details, and it does not try again.
    ErrorCode.NOTHING_STORED: ErrorSpec(
        _O.FAILED_PRECONDITION,
        "The SuperLink cannot store anything at the moment, so it accepts no runs.",
        "Most likely a disk of the server is full. Its operator finds the reason with "
        "`flower-nats status`. Start the run again once there is room.",
    ),
    # Not UNAVAILABLE: for that, flwr 1.30 to 1.32 show no details, and report a network error.
    ErrorCode.ISSUER_AWAY: ErrorSpec(
        _O.FAILED_PRECONDITION, "The OIDC issuer, which authenticates people, does not answer."
    ),
}


class FlowerNatsError(Exception):
    """Something went wrong in flower-nats."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or (self.__doc__ or "").strip())


class ApiError(FlowerNatsError):
    """A refusal that a caller gets to see in the form that `CATALOGUE` gives it."""

    def __init__(self, code: ErrorCode, detail: str, public_details: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        """For our log. It may contain facts that a caller must not see."""
        self.public_details = self.spec.remedy if public_details is None else public_details
        """For the caller: what was refused, and what to do."""

    @property
    def spec(self) -> ErrorSpec:
        """What the caller sees."""
        return CATALOGUE[self.code]


def too_long(longest: int) -> ApiError:
    """Return the refusal of a request whose body has more than `longest` bytes."""
    text = f"The body has more than {longest} bytes."
    return ApiError(ErrorCode.BODY_TOO_LONG, text, text)


class Unavailable(ApiError):
    """A temporary fault of the runtime: the only refusal that stock clients retry."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, detail)
