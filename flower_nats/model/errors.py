"""Every refusal the runtime can give, and how each looks from outside.

Code raises `ApiError(code, detail)`: `detail` is for our log, never for the caller. One table,
`CATALOGUE`, says what the caller sees. Codes below 10,000 are Flower's own (flwr 1.33
`supercore/error/catalog.py`), which stock clients know by number, with the status Flower gives
them; codes from 10,000 are ours, for refusals that Flower gives as plain text without a number.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum


class Status(Enum):
    """The outcome a client reacts to: name of the gRPC status and number of the HTTP status."""

    INVALID_ARGUMENT = 400
    UNAUTHENTICATED = 401
    PERMISSION_DENIED = 403
    NOT_FOUND = 404
    FAILED_PRECONDITION = 412
    RESOURCE_EXHAUSTED = 413
    UNIMPLEMENTED = 501
    INTERNAL = 500
    UNAVAILABLE = 503
    # HTTP has no status of its own for the end of a long answer: 504 asks the client to come again.
    DEADLINE_EXCEEDED = 504


class ErrorCode(IntEnum):
    """Number of a refusal; see the module's docstring for the two ranges."""

    NO_FEDERATION_MANAGEMENT = 1
    FEDERATION_NOT_FOUND_OR_NO_PERMISSION = 2
    FAILED_TO_CREATE_RUN = 14
    INVALID_RUN_CONFIG = 15
    RUN_ID_NOT_FOUND = 16
    RUN_SERIES_ID_NOT_FOUND = 17
    RUN_ALREADY_FINISHED = 18
    NO_ACCOUNT_AUTH = 19
    NO_ARTIFACT_PROVIDER = 20
    PUBLIC_KEY_NOT_VALID = 22
    PUBLIC_KEY_ALREADY_IN_USE = 23
    NODE_NOT_FOUND = 24
    FEDERATION_NOT_FOUND = 25
    FEDERATION_NOT_FOUND_OR_NOT_MEMBER = 26
    UNSUPPORTED_FAB_HUB = 32
    FAB_DOWNLOAD_FAILURE = 35
    CONNECTOR_NOT_FOUND = 39
    SUPERNODE_REGISTRATION_DISABLED = 2001
    SUPERNODE_UNREGISTRATION_DISABLED = 2002
    INVALID_HEARTBEAT_INTERVAL = 2003
    NODE_ACTIVATION_FAILED = 2004
    NODE_DEACTIVATION_FAILED = 2005
    NODE_UNREGISTRATION_FAILED = 2006
    RUN_STATUS_NOT_ALLOWED = 2007
    GET_RUN_FAILED = 2008
    GET_FAB_FAILED = 2009

    UNAVAILABLE = 10_000
    MALFORMED_REQUEST = 10_002
    NOT_IMPLEMENTED = 10_003
    STREAM_ENDS = 10_004
    BODY_TOO_LONG = 10_005
    MISSING_AUTH_METADATA = 10_010
    INVALID_SIGNATURE = 10_011
    INVALID_TIMESTAMP = 10_012
    INVALID_NODE_ID = 10_013
    AUTHENTICATION_FAILED = 10_014
    TASK_NOT_STARTABLE = 10_020
    UNEXPECTED_NODE_ID = 10_021
    NOT_A_SERVERAPP_TASK = 10_022
    TASK_MAY_NOT_CREATE_TASKS = 10_023
    INVALID_TASK = 10_024
    TASK_MESSAGE_REFUSED = 10_025
    INSTRUCTION_WITHDRAWN = 10_030


@dataclass(frozen=True)
class ErrorSpec:
    """What a caller sees of one error code."""

    status: Status
    """The status that makes stock clients react properly (wire-facts, 1.1)."""
    message: str
    """Public text: names the thing refused and, where there is one, the remedy."""


_S = Status
CATALOGUE: dict[ErrorCode, ErrorSpec] = {
    ErrorCode.NO_FEDERATION_MANAGEMENT: ErrorSpec(
        _S.UNIMPLEMENTED, "SuperLink does not support federation management."
    ),
    ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION: ErrorSpec(
        _S.NOT_FOUND,
        "Federation not found, archived, or you cannot use it this way. "
        "`flwr federation list` shows the ones you can use.",
    ),
    ErrorCode.FAILED_TO_CREATE_RUN: ErrorSpec(_S.INTERNAL, "The run could not be created."),
    ErrorCode.INVALID_RUN_CONFIG: ErrorSpec(_S.FAILED_PRECONDITION, "Invalid run configuration."),
    ErrorCode.RUN_ID_NOT_FOUND: ErrorSpec(_S.NOT_FOUND, "Run ID not found."),
    ErrorCode.RUN_SERIES_ID_NOT_FOUND: ErrorSpec(_S.NOT_FOUND, "Run series ID not found."),
    ErrorCode.RUN_ALREADY_FINISHED: ErrorSpec(_S.FAILED_PRECONDITION, "Run is already finished."),
    ErrorCode.NO_ACCOUNT_AUTH: ErrorSpec(
        _S.UNIMPLEMENTED,
        "This SuperLink runs without account authentication: no login is needed.",
    ),
    ErrorCode.NO_ARTIFACT_PROVIDER: ErrorSpec(
        _S.UNIMPLEMENTED, "ControlServicer initialized without artifact provider."
    ),
    ErrorCode.PUBLIC_KEY_NOT_VALID: ErrorSpec(
        _S.FAILED_PRECONDITION,
        "The public key is not valid: it must be a NIST elliptic-curve key.",
    ),
    ErrorCode.PUBLIC_KEY_ALREADY_IN_USE: ErrorSpec(
        _S.FAILED_PRECONDITION, "Public key already in use."
    ),
    ErrorCode.NODE_NOT_FOUND: ErrorSpec(_S.NOT_FOUND, "Node ID not found for account."),
    ErrorCode.FEDERATION_NOT_FOUND: ErrorSpec(_S.FAILED_PRECONDITION, "Federation does not exist."),
    ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER: ErrorSpec(
        _S.FAILED_PRECONDITION, "Federation does not exist or you are not a member of it."
    ),
    ErrorCode.UNSUPPORTED_FAB_HUB: ErrorSpec(
        _S.FAILED_PRECONDITION,
        "This SuperLink does not fetch apps from Flower Hub: "
        "download the app and give `flwr run` its folder.",
    ),
    ErrorCode.FAB_DOWNLOAD_FAILURE: ErrorSpec(
        _S.FAILED_PRECONDITION, "The app's FAB is not known here: submit it with its content."
    ),
    ErrorCode.CONNECTOR_NOT_FOUND: ErrorSpec(_S.NOT_FOUND, "Connector not found."),
    ErrorCode.SUPERNODE_REGISTRATION_DISABLED: ErrorSpec(
        _S.FAILED_PRECONDITION,
        "SuperNode authentication is enabled: register the SuperNode's key with "
        "`flwr supernode register`, then start it with that key.",
    ),
    ErrorCode.SUPERNODE_UNREGISTRATION_DISABLED: ErrorSpec(
        _S.FAILED_PRECONDITION,
        "SuperNode authentication is enabled: unregister it with `flwr supernode unregister`.",
    ),
    ErrorCode.INVALID_HEARTBEAT_INTERVAL: ErrorSpec(
        _S.INVALID_ARGUMENT, "Invalid heartbeat interval: it must be from 10 to 1800 seconds."
    ),
    ErrorCode.NODE_ACTIVATION_FAILED: ErrorSpec(
        _S.FAILED_PRECONDITION,
        "The SuperNode could not be activated: its key is not registered here.",
    ),
    ErrorCode.NODE_DEACTIVATION_FAILED: ErrorSpec(
        _S.FAILED_PRECONDITION, "The SuperNode could not be deactivated: it is not online."
    ),
    ErrorCode.NODE_UNREGISTRATION_FAILED: ErrorSpec(
        _S.FAILED_PRECONDITION, "The SuperNode could not be unregistered: it is not registered."
    ),
    ErrorCode.RUN_STATUS_NOT_ALLOWED: ErrorSpec(
        _S.PERMISSION_DENIED, "The run is not running, so this is not allowed."
    ),
    ErrorCode.GET_RUN_FAILED: ErrorSpec(_S.PERMISSION_DENIED, "Failed to get run."),
    ErrorCode.GET_FAB_FAILED: ErrorSpec(_S.PERMISSION_DENIED, "Failed to get FAB."),
    ErrorCode.UNAVAILABLE: ErrorSpec(
        _S.UNAVAILABLE, "The SuperLink cannot answer at the moment. Try again."
    ),
    ErrorCode.MALFORMED_REQUEST: ErrorSpec(_S.INVALID_ARGUMENT, "Malformed request."),
    ErrorCode.NOT_IMPLEMENTED: ErrorSpec(
        _S.UNIMPLEMENTED, "This SuperLink does not support this call."
    ),
    ErrorCode.STREAM_ENDS: ErrorSpec(
        _S.DEADLINE_EXCEEDED, "The stream ends here, the run goes on. Call again from where it was."
    ),
    ErrorCode.BODY_TOO_LONG: ErrorSpec(_S.RESOURCE_EXHAUSTED, "The request is too long."),
    ErrorCode.MISSING_AUTH_METADATA: ErrorSpec(
        _S.UNAUTHENTICATED, "Missing authentication metadata"
    ),
    ErrorCode.INVALID_SIGNATURE: ErrorSpec(_S.UNAUTHENTICATED, "Invalid signature"),
    ErrorCode.INVALID_TIMESTAMP: ErrorSpec(_S.UNAUTHENTICATED, "Invalid timestamp"),
    ErrorCode.INVALID_NODE_ID: ErrorSpec(_S.UNAUTHENTICATED, "Invalid node ID"),
    ErrorCode.AUTHENTICATION_FAILED: ErrorSpec(_S.UNAUTHENTICATED, "Authentication failed."),
    ErrorCode.TASK_NOT_STARTABLE: ErrorSpec(_S.FAILED_PRECONDITION, "Failed to start task."),
    ErrorCode.UNEXPECTED_NODE_ID: ErrorSpec(_S.FAILED_PRECONDITION, "Unexpected node ID."),
    ErrorCode.NOT_A_SERVERAPP_TASK: ErrorSpec(
        _S.PERMISSION_DENIED,
        "Some ServerAppIo API endpoints are only available for Deployment Runtime runs.",
    ),
    ErrorCode.TASK_MAY_NOT_CREATE_TASKS: ErrorSpec(
        _S.PERMISSION_DENIED, "A task of this type is not allowed to create tasks."
    ),
    ErrorCode.INVALID_TASK: ErrorSpec(_S.FAILED_PRECONDITION, "Invalid task."),
    ErrorCode.TASK_MESSAGE_REFUSED: ErrorSpec(
        _S.FAILED_PRECONDITION, "Task message could not be stored."
    ),
    # Not PERMISSION_DENIED: a stock SuperNode that gets it while it receives a message leaves the
    # ClientApp that it has begun to start waiting for the message's objects, for an hour.
    ErrorCode.INSTRUCTION_WITHDRAWN: ErrorSpec(
        _S.FAILED_PRECONDITION, "The run is not running: its messages are withdrawn."
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
        """For our log: may hold what a caller must not see."""
        self.public_details = public_details
        """For the caller: what exactly was refused and what to do."""

    @property
    def spec(self) -> ErrorSpec:
        """What the caller sees."""
        return CATALOGUE[self.code]


class Unavailable(ApiError):
    """A transient fault of ours: the one thing that stock clients retry."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, detail)
