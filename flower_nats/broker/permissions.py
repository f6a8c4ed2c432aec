"""What each NATS user may publish and subscribe to: the least that its process needs.

Streams, superlinks, backups and `flower-nats up` are in one account, FLOWER. Every other user has
an account of its own, which imports the subjects that it needs from FLOWER. Only accounts keep
users apart. nats-server checks what a user publishes and subscribes to, but not where the answer to
a request goes. Within one account, a user with any request could have the answer sent to
`$JS.API.STREAM.PURGE.FN_LOGS`, and all logs would be gone. Between accounts, an answer returns to
the account that has asked.

`accounts` is a part of nats-server's configuration: of the embedded one (`flower_nats.embedded`),
and of your own as `compose/nats/accounts.conf`, which `compose/nats/generate.py` writes. A NATS
with other accounts, or none, works too, but refuses nothing.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.inboxes import ANSWERS, inboxes_of
from flower_nats.broker.storage import SETTINGS

_RUNTIME = "FLOWER"
"""The account with the streams."""

_SYSTEM = "SYS"

_LEADERS = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.*"
"""Every connection hears this: a stream has a new leader."""

_INFO = "$JS.API.INFO"
"""Every account imports this, though few users may ask it. In an account that does not import it,
nats-server answers every `$JS.API` request with the error that the account has no streams."""

_SILENCE = "30s"
"""After this time nats-server drops further answers to a call. Superlinks send a sign of work every
second."""


class User(StrEnum):
    """The users of a runtime's NATS."""

    SUPERLINK = "superlink"
    """Superlinks, and the SuperExecs that they start. No other user answers calls."""

    GATEWAY = "gateway"
    """Gateways, which face other machines."""

    OPERATOR = "operator"
    """`flower-nats status` and the other commands of operators."""

    CONSOLE = "console"
    """The console, which shows the answers of superlinks."""

    BACKUP = "backup"
    """`flower-nats backup` and `restore`, which copy logs as a stream."""

    OWNER = "owner"
    """The process that started an embedded server. It may do everything in the runtime's
    account."""


_GUESTS = (User.GATEWAY, User.OPERATOR, User.CONSOLE)
"""Users with an account of their own."""


def accounts(passwords: Mapping[User, str]) -> dict[str, Any]:
    """Return the accounts of these users, in the form of nats-server's configuration."""
    guests = [user for user in passwords if user in _GUESTS]
    return {
        _RUNTIME: {
            "jetstream": "enabled",
            "users": [_login(user, word) for user, word in passwords.items() if user not in guests],
            "exports": [*_exports(guests)],
            # Lets superlinks read the server's settings, which decide the durability.
            "imports": [{"service": {"account": _SYSTEM, "subject": SETTINGS}}],
        },
        **{
            str(user).upper(): {
                "users": [_login(user, passwords[user])],
                "exports": [*_exports_of_hints(user)],
                "imports": _imports(user),
            }
            for user in guests
        },
        # There are several answers, because each server of a cluster gives its own.
        _SYSTEM: {"exports": [{"service": SETTINGS, "response_type": "Stream"}]},
    }


def _login(user: User, password: str) -> dict[str, Any]:
    login: dict[str, Any] = {"user": str(user), "password": password}
    if user is User.OWNER:
        return login
    hear = [f"{inboxes_of(user)}.>", _LEADERS, *_HEARS[user]]
    permissions = {"publish": {"allow": sorted(_SAYS[user])}, "subscribe": {"allow": sorted(hear)}}
    return {**login, "permissions": permissions}


def _exports(guests: Iterable[User]) -> Iterable[dict[str, Any]]:
    names = {user: str(user).upper() for user in guests}
    for subject in sorted({_INFO}.union(*(_services(user) for user in names))):
        answers: dict[str, Any] = {}
        if subject in _ANSWERED_AT_LENGTH:
            answers = {"response_type": "Stream", "response_threshold": _SILENCE}
        whose = [name for user, name in names.items() if subject in {_INFO, *_services(user)}]
        yield {"service": subject, "accounts": whose, **answers}
    for subject in (_LEADERS, *subjects.HINTS):
        whose = [name for user, name in names.items() if subject in {_LEADERS, *_HEARS[user]}]
        yield {"stream": subject, "accounts": whose}


def _exports_of_hints(user: User) -> Iterable[dict[str, Any]]:
    """Let the console hear gateways directly: hints that went through FLOWER would come twice."""
    if user is User.GATEWAY:
        for subject in subjects.HINTS:
            yield {"stream": subject, "accounts": [str(User.CONSOLE).upper()]}


def _imports(user: User) -> list[dict[str, Any]]:
    streams = [(_RUNTIME, _LEADERS)]
    streams += [(_RUNTIME, subject) for subject in subjects.HINTS if subject in _HEARS[user]]
    if user is User.CONSOLE:
        streams += [(str(User.GATEWAY).upper(), subject) for subject in subjects.HINTS]
    return [
        *(
            {"service": {"account": _RUNTIME, "subject": subject}}
            for subject in sorted({_INFO, *_services(user)})
        ),
        *({"stream": {"account": account, "subject": one}} for account, one in streams),
    ]


def _services(user: User) -> set[str]:
    """What a user with its own account publishes to the runtime's account."""
    return _SAYS[user] - _AMONG_GATEWAYS


def _calls(services: Iterable[str]) -> set[str]:
    """Requests to superlinks: to any, and to a certain one."""
    return {
        subject
        for service in services
        for subject in (subjects.api(service, "*"), subjects.one("*", service, "*"))
    }


def _of_streams(verb: str, streams: Iterable[str] = subjects.STREAMS) -> set[str]:
    return {f"$JS.API.{verb}.{stream}" for stream in streams}


_FORWARDED = ("Fleet", "Runtime", "Control")

_ANSWERED_AT_LENGTH = {
    *_calls([*_FORWARDED, subjects.INTERNAL, subjects.OPERATOR, subjects.CONSOLE]),
    *_of_streams("DIRECT.GET", [subjects.LOGS_STREAM]),
}
"""Requests with several answers: signs of work before the answer, and the records of a log."""

_READS = {
    *_of_streams("STREAM.MSG.GET"),
    *_of_streams("DIRECT.GET"),
    *_of_streams("STREAM.INFO"),
}

_LARGE_BODIES = {
    subjects.BLOBS_SUBJECTS,
    *_of_streams("STREAM.MSG.GET", [subjects.BLOBS_STREAM]),
    *_of_streams("DIRECT.GET", [subjects.BLOBS_STREAM]),
    *_of_streams("STREAM.PURGE", [subjects.BLOBS_STREAM]),
}
"""The subjects that calls need if their body is too large for one message."""

_STORED = {
    subjects.MESSAGES_SUBJECTS,
    subjects.OBJECTS_SUBJECTS,
    subjects.LOGS_SUBJECTS,
    subjects.trial("*"),
}

_AMONG_GATEWAYS = {
    subjects.gateway("*"),
    f"{subjects.WAKE_NODE}*",
    f"{subjects.WAKE_RUN}*",
    f"{subjects.WAKE_OBJECT}>",
    f"{subjects.WAKE_SESSION}*",
    f"{subjects.WAKE_LOG}*",
    subjects.EVENT_SIGNATURES,
    f"{subjects.EVENT_LINES}*",
    f"{subjects.EVENT_GATEWAY}*",
}
"""Hints between gateways. Gateways tell superlinks only who pushes objects (`EVENT_PUSHES`). All
other hints, for example that a run has ended, come from superlinks."""

_SAYS: dict[User, set[str]] = {
    User.SUPERLINK: {
        *_STORED,
        *_READS,
        *_LARGE_BODIES,
        *_of_streams("STREAM.CREATE"),
        *_of_streams("STREAM.UPDATE"),
        *_of_streams("STREAM.PURGE"),
        "$JS.API.STREAM.NAMES",
        _INFO,
        SETTINGS,
        # The SuperExec beside a superlink asks, too.
        *_calls([subjects.INTERNAL]),
        *ANSWERS,
        *subjects.HINTS,
    },
    User.GATEWAY: {
        *_STORED,
        *_READS,
        *_LARGE_BODIES,
        # A gateway writes every subject of messages in flight, so it may also remove all of them.
        *_of_streams("STREAM.PURGE", [subjects.MESSAGES_STREAM]),
        *_calls([*_FORWARDED, subjects.INTERNAL]),
        *_AMONG_GATEWAYS,
        f"{subjects.EVENT_PUSHES}*",
    },
    User.OPERATOR: {*_calls([subjects.OPERATOR]), *_LARGE_BODIES},
    User.BACKUP: {
        *_of_streams("STREAM.SNAPSHOT", [subjects.LOGS_STREAM]),
        *_of_streams("STREAM.RESTORE", [subjects.LOGS_STREAM]),
        *_of_streams("STREAM.DELETE", [subjects.LOGS_STREAM]),
        "$JS.API.STREAM.NAMES",
        # The pieces of a copy, in both directions.
        "$JS.SNAPSHOT.>",
    },
    User.CONSOLE: {*_calls(["Control", subjects.CONSOLE]), *_LARGE_BODIES},
}

_HEARS: dict[User, set[str]] = {
    User.SUPERLINK: {f"{subjects.API}>", f"{subjects.ONE}>", *subjects.HINTS},
    User.GATEWAY: {*subjects.HINTS, subjects.gateway("*")},
    User.OPERATOR: set(),
    User.BACKUP: set(),
    User.CONSOLE: set(subjects.HINTS),
}
