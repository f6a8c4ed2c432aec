"""Who may make which call of the Control API. This is the only such table.

Each call has an object: a federation, or a run, a series or a SuperNode of a federation. An account
outside the federation gets the same answer as if the object did not exist. A member has the level
of its role. Operators of the runtime stand above all roles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from flower_nats.model.errors import ErrorCode
from flower_nats.model.federation import MemberRole


class Level(IntEnum):
    """The level of a caller for a call. Each level includes the rights of those before it."""

    ANYBODY = 0
    """Any caller of the Control API, without an account."""

    ACCOUNT = 1
    """An account outside the federation, or a call without a federation."""

    VIEWER = 2
    MEMBER = 3
    ADMIN = 4
    OWNER = 5

    OPERATOR = 6
    """An operator of the whole runtime."""


LEVELS: Mapping[MemberRole, Level] = {
    MemberRole.VIEWER: Level.VIEWER,
    MemberRole.MEMBER: Level.MEMBER,
    MemberRole.ADMIN: Level.ADMIN,
    MemberRole.OWNER: Level.OWNER,
}


class About(Enum):
    """The object of a call, which decides where the right is looked up."""

    ITSELF = "the account"
    """The caller's own account. Lists show what it may see."""

    FEDERATION = "the federation"
    """The federation that the request names."""

    MEMBER = "an account in the federation"
    """An account, by default the caller's, in the federation that the request names."""

    FEDERATION_NODE = "a SuperNode in the federation"
    """A SuperNode, and the federation that the request names."""

    NODE = "a SuperNode"
    """A SuperNode; its owner's account counts."""

    RUN = "a run"
    """A run and its federation."""

    SERIES = "a series of runs"
    """A series and its federation."""


class Unnamed(Enum):
    """The meaning of a request without a federation."""

    REFUSED = "refused"
    DEFAULT = "the caller's federation"
    ALL = "all that the caller sees"


@dataclass(frozen=True)
class Right:
    """The right that a call needs."""

    about: About

    takes: Level
    """The least level. For objects with an owner (runs, SuperNodes, memberships), the owner's."""

    hidden: ErrorCode | None = None
    """The refusal if the object does not exist or the caller does not see it."""

    of_others: Level | None = None
    """The least level if the owner is another account; by default the same."""

    not_own: ErrorCode = ErrorCode.NO_PERMISSIONS
    """The refusal for an account that sees the object, but needs to be its owner."""

    unnamed: Unnamed = Unnamed.REFUSED

    changes: bool = True
    """Whether the call may change something."""


def _see(about: About, hidden: ErrorCode, unnamed: Unnamed = Unnamed.REFUSED) -> Right:
    return Right(about, Level.VIEWER, hidden, unnamed=unnamed, changes=False)


_E = ErrorCode

_LOGIN = Right(About.ITSELF, Level.ANYBODY)

_BEGINS_LOGIN = Right(About.ITSELF, Level.ANYBODY, changes=False)
"""A stranger may ask for a login. It counts as a login when its tokens are given out."""

_OWN = Right(About.ITSELF, Level.ACCOUNT)

_LIST = Right(About.ITSELF, Level.ACCOUNT, changes=False)

RIGHTS: Mapping[str, Right] = {
    # Logging in
    "GetLoginDetails": _BEGINS_LOGIN,
    "GetAuthTokens": _LOGIN,
    "RefreshAuthTokens": _LOGIN,
    # Runs
    "StartRun": Right(
        About.FEDERATION,
        Level.MEMBER,
        _E.FEDERATION_NOT_FOUND_OR_NO_PERMISSION,
        unnamed=Unnamed.DEFAULT,
    ),
    "StopRun": Right(About.RUN, Level.VIEWER, _E.RUN_ID_NOT_FOUND, of_others=Level.ADMIN),
    "ListRuns": _see(About.RUN, _E.RUN_ID_NOT_FOUND, Unnamed.ALL),
    "StreamLogs": _see(About.RUN, _E.RUN_ID_NOT_FOUND),
    "PullArtifacts": Right(About.RUN, Level.VIEWER, _E.RUN_ID_NOT_FOUND),
    "StreamRunEvents": _see(About.RUN, _E.RUN_ID_NOT_FOUND),
    "ListRunSeries": _see(About.FEDERATION, _E.FEDERATION_NOT_FOUND, Unnamed.ALL),
    "GetRunSeries": _see(About.SERIES, _E.RUN_SERIES_ID_NOT_FOUND),
    "ListRunSeriesEvents": _see(About.SERIES, _E.RUN_SERIES_ID_NOT_FOUND),
    "UpdateRunSeriesDescription": Right(About.SERIES, Level.MEMBER, _E.RUN_SERIES_ID_NOT_FOUND),
    # SuperNodes
    "RegisterNode": _OWN,
    "UnregisterNode": Right(
        About.NODE,
        Level.ACCOUNT,
        _E.NODE_NOT_FOUND,
        of_others=Level.OPERATOR,
        not_own=_E.NODE_NOT_FOUND,
    ),
    "ListNodes": _LIST,
    # Federations
    "ListFederations": _LIST,
    "CreateFederation": _OWN,
    "ShowFederation": _see(About.FEDERATION, _E.FEDERATION_NOT_FOUND_OR_NOT_MEMBER),
    "ArchiveFederation": Right(
        About.FEDERATION, Level.OWNER, _E.FEDERATION_NOT_FOUND_OR_NO_PERMISSION
    ),
    "SetFederationIcon": Right(
        About.FEDERATION, Level.OWNER, _E.FEDERATION_NOT_FOUND_OR_NO_PERMISSION
    ),
    "ConfigureSimulationFederation": Right(
        About.FEDERATION,
        Level.ADMIN,
        _E.FEDERATION_NOT_FOUND_OR_NO_PERMISSION,
        unnamed=Unnamed.DEFAULT,
    ),
    "AddNodeToFederation": Right(
        About.FEDERATION_NODE,
        Level.MEMBER,
        _E.FEDERATION_NOT_FOUND,
        of_others=Level.OPERATOR,
        not_own=_E.NODE_NOT_FOUND_OR_NOT_OWNER,
    ),
    "RemoveNodeFromFederation": Right(
        About.FEDERATION_NODE, Level.VIEWER, _E.FEDERATION_NOT_FOUND, of_others=Level.ADMIN
    ),
    "RemoveAccountFromFederation": Right(
        About.MEMBER,
        Level.VIEWER,
        _E.FEDERATION_NOT_FOUND_OR_NOT_MEMBER,
        of_others=Level.ADMIN,
    ),
    "CreateInvitation": Right(
        About.FEDERATION, Level.ADMIN, _E.FEDERATION_NOT_FOUND_OR_NO_PERMISSION
    ),
    "RevokeInvitation": Right(
        About.FEDERATION, Level.ADMIN, _E.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE
    ),
    "AcceptInvitation": _OWN,
    "RejectInvitation": _OWN,
    "ListInvitations": _LIST,
    # Apps
    "ListApps": _see(About.FEDERATION, _E.FEDERATION_NOT_FOUND),
    "ListAppAssociations": _LIST,
    "AddApp": Right(About.FEDERATION, Level.MEMBER, _E.FEDERATION_NOT_FOUND),
    "RemoveApp": Right(About.FEDERATION, Level.MEMBER, _E.FEDERATION_NOT_FOUND),
    # Objects that do not exist here: refused for everybody
    "StartAutomation": _OWN,
    "ListAutomations": _see(About.FEDERATION, _E.FEDERATION_NOT_FOUND, Unnamed.ALL),
    "StopAutomation": _OWN,
    "ListConnectors": _see(About.FEDERATION, _E.FEDERATION_NOT_FOUND, Unnamed.ALL),
    "DisconnectConnector": _OWN,
    "BeginConnectorOAuth": _OWN,
    "CompleteConnectorOAuth": _OWN,
}


def refusal(right: Right, level: Level, *, is_own: bool = True) -> ErrorCode | None:
    """Return why a call may not be made, None if it may.

    `is_own` says whether the object belongs to the caller, or to nobody.
    """
    if level < right.takes:
        if level is Level.ANYBODY:
            return ErrorCode.ACCOUNT_AUTHENTICATION_FAILED
        return right.hidden if level < Level.VIEWER else ErrorCode.NO_PERMISSIONS
    if not is_own and right.of_others is not None and level < right.of_others:
        return right.not_own
    return None
