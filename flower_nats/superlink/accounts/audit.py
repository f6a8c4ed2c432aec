"""The audit trail: which calls become events, who reads them, and when they are removed.

The table of rights says which calls of Control change something: each becomes an event, and so does
every refusal of any call. The commands that operators run with `flower-nats` are recorded by name.
Contents of messages and apps, and passwords, are never in an event.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message as ProtoMessage

from flower_nats.broker.subjects import OPERATOR
from flower_nats.logs import get_logger
from flower_nats.model.account import account_token_hash
from flower_nats.model.audit import DONE, AuditEvent, ChainedEvent
from flower_nats.model.caller import Caller
from flower_nats.model.errors import CATALOGUE, ApiError, Outcome, Unavailable
from flower_nats.store.accounts import Accounts
from flower_nats.store.audit import (
    ATTEMPT,
    Attempt,
    AuditTrail,
    Filter,
    append,
    note_account,
)
from flower_nats.store.connection import Database, NotAllowed, Transaction
from flower_nats.store.runtime_events import note
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.accounts.rights import RIGHTS, Level
from flower_nats.superlink.codecs import InternalHandler, ProtoHandler
from flower_nats.superlink.convert import iso

log = get_logger(__name__)

Map = Mapping[str, Any]

_T = TypeVar("_T")

_NOBODY = ""
"""The account of a call without a proven account."""

_OPERATOR = "(flower-nats)"
"""The account of calls by the `flower-nats` command, which proves itself to NATS."""

_ISSUER = "(issuer)"
"""The account of changes that an OIDC issuer causes."""

_STRANGERS_A_MINUTE = 60
"""Refusals of calls without an account that a superlink records per minute. Otherwise anyone who
reaches Control could fill the database. The log has all of them."""

_ON_THE_PAGE = ("ConfirmLogin", "RefuseLogin")
"""Calls of browsers without a proven account, unless they confirm a login."""

_MOST_EVENTS = 1_000
"""Events in one answer."""

_BY_OPERATORS = {
    "CreateAccount": "account {name}, {role}",
    "DisableAccount": "account {name}",
    "EnableAccount": "account {name}",
    "SetAccountRole": "account {name}, {role}",
    "SetAccountPassword": "account {name}",
    "CreateAccountToken": "account {name}, token {token}",
    "RevokeAccountToken": "account {name}, token {token}",
    "ConfirmLogin": "login",
    "RefuseLogin": "login",
    "DeleteRun": "run {run_id}",
    "EndRuns": "all runs",
    "SetQuota": "{kind} {name}",
    "SetMemberRole": "{federation}, account {account}, {role}",
    "RotateNodeKey": "node {node_id}",
    "AddAppSignature": "app",
    "Download": "artifacts",
    "AddWebhook": "webhook",
    "RemoveWebhook": "webhook {webhook_id}",
    "TestWebhook": "webhook {webhook_id}",
}
"""The internal calls that become events, each with its object."""


_FOLLOWING = {"FollowRun": "run {run_id}"}
"""The question of gateways for Control's streams, which they serve themselves. Its refusals are
events."""

_ACTIONS = {"FollowRun": "StreamLogs"}
"""The name of an internal call for people: the call of Control that it belongs to."""


class Auditor:
    """Makes events of calls."""

    def __init__(self, database: Database, identity: Identity) -> None:
        self._database = database
        self._identity = identity
        self._strangers = _Allowance(_STRANGERS_A_MINUTE)

    def guard(self, name: str, handler: ProtoHandler) -> ProtoHandler:
        """Wrap a handler of Control: identify the account of each caller, and record the call."""
        changes = RIGHTS[name].changes
        is_open = RIGHTS[name].takes is Level.ANYBODY
        identified = self._identity.guard(name, handler if is_open else _keep_caller(handler))

        async def ended(attempt: Attempt, response: ProtoMessage) -> None:
            if changes and attempt.recorded is None:
                await self._done(attempt, response)

        async def serve(request: Any, caller: Caller) -> ProtoMessage:
            event = _event(name, _object_of(request), caller)
            return await self._serve(event, identified(request, caller), ended)

        return serve

    def guard_internal(self, service: str, name: str, handler: InternalHandler) -> InternalHandler:
        """Wrap a handler of operators, the login page or the console: record its calls."""
        about = _BY_OPERATORS.get(name) or _FOLLOWING.get(name)
        if about is None:
            return handler
        changes = name not in _FOLLOWING

        async def ended(attempt: Attempt, answer: Map) -> None:
            outcome = str(answer.get("outcome", DONE))
            is_proven = outcome == "confirmed"
            attempt.event = replace(attempt.event, outcome=DONE if is_proven else outcome)
            if name in _ON_THE_PAGE and not is_proven and self._is_left_out(attempt.event):
                return
            if changes and attempt.recorded is None:
                await self._record(attempt)

        async def serve(question: Map, caller: Caller) -> Map:
            event = replace(
                _event(_ACTIONS.get(name, name), about.format_map(_Said(question)), caller),
                account_name=_account_of(service, name, question),
                address=str(question.get("address", caller.address)),
            )
            return await self._serve(event, handler(question, caller), ended)

        return serve

    async def _serve(
        self,
        event: AuditEvent,
        serving: Awaitable[_T],
        ended: Callable[[Attempt, _T], Awaitable[None]],
    ) -> _T:
        """Answer a call by awaiting `serving`; this records a refusal, `ended` all else."""
        with _attempt(event) as attempt:
            try:
                answer = await serving
            except ApiError as exc:
                await self._refused(attempt, exc)
                raise
            await ended(attempt, answer)
            if attempt.recorded is not None:
                tell(attempt.recorded)
            return answer

    async def _done(self, attempt: Attempt, response: Any) -> None:
        if attempt.event.action in ("GetAuthTokens", "RefreshAuthTokens"):
            # The command repeats this call until the login is confirmed.
            if not response.access_token:
                return
            token_hash = account_token_hash(response.access_token)
            known = await Accounts(self._database).by_token(token_hash)
            if known is not None:
                note_account(known.account.account_id, known.account.name)
        await self._record(attempt)

    async def _refused(self, attempt: Attempt, refusal: ApiError) -> None:
        if CATALOGUE[refusal.code].outcome is Outcome.UNAVAILABLE:
            return
        attempt.event = event = replace(attempt.event, outcome=refusal.code.name)
        # The call has no proven account, so anybody may have made it.
        if event.account_name == _NOBODY and self._is_left_out(event):
            return
        try:
            await self._record(attempt)
        except Unavailable as exc:
            # The caller gets the reason of the refusal, even if the event cannot be stored.
            log.warning("audit_not_stored", reason=exc.detail, **asdict(event))
            return
        if attempt.recorded is not None:
            tell(attempt.recorded)

    def _is_left_out(self, event: AuditEvent) -> bool:
        """Whether strangers have made too many events, so that only the log gets this one."""
        if self._strangers.take():
            return False
        log.warning("audit_left_out", address=event.address, action=event.action)
        return True

    async def _record(self, attempt: Attempt) -> None:
        """Add an event, unless the request has one: gateways repeat a call with a lost answer."""
        event = attempt.event

        async def add(transaction: Transaction) -> ChainedEvent | None:
            if event.request_id and await AuditTrail(transaction).is_known(event):
                return None
            return await append(transaction, event)

        attempt.recorded = await self._database.transaction(add)


def _keep_caller(handler: ProtoHandler) -> ProtoHandler:
    """Note the account of a call, once it is known."""

    async def serve(request: Any, caller: Caller) -> ProtoMessage:
        note_account(caller.account_id, caller.account_name)
        return await handler(request, caller)

    return serve


def _event(name: str, about: str, caller: Caller) -> AuditEvent:
    """Return the event of a call without a known account."""
    return AuditEvent(
        account_id=_NOBODY,
        account_name=_NOBODY,
        address=caller.address,
        action=name,
        object=about,
        outcome=DONE,
        request_id=caller.request_id,
    )


@contextmanager
def _attempt(event: AuditEvent) -> Iterator[Attempt]:
    attempt = Attempt(event)
    token = ATTEMPT.set(attempt)
    try:
        yield attempt
    finally:
        ATTEMPT.reset(token)


def _account_of(service: str, name: str, question: Map) -> str:
    """Return the account name of a call that is not identified otherwise."""
    if service == OPERATOR:
        return _OPERATOR
    return str(question["name"]) if name == "ConfirmLogin" else _NOBODY


async def record_of_issuer(transaction: Transaction, action: str, about: str) -> ChainedEvent:
    """Add the event of a change by the issuer during another call; call `tell` afterwards."""
    attempt = ATTEMPT.get()
    assert attempt is not None, "a call of Control is being served"
    said = replace(
        attempt.event, account_id=_NOBODY, account_name=_ISSUER, action=action, object=about
    )
    return await append(transaction, said)


def tell(recorded: ChainedEvent) -> None:
    """Log the event with its hash. The log is kept elsewhere, so that it can prove the database."""
    log.info(
        "audit", event_id=recorded.event_id, hash=recorded.hash.hex(), **asdict(recorded.event)
    )


def _object_of(request: Any) -> str:
    """Return the object of a request of Control: only ids and names, no other content."""
    fields = request.DESCRIPTOR.fields_by_name
    numbers = [
        f"{word} {getattr(request, field)}"
        for field, word in (("run_id", "run"), ("node_id", "node"), ("series_id", "series"))
        if field in fields and getattr(request, field)
    ]
    names = [
        f"{word}{getattr(request, field)}"
        for field, word in (
            ("federation_name", ""),
            ("federation_id", ""),
            ("federation", ""),
            ("app_id", "app "),
            ("account_name", "account "),
            ("invitee_account_name", "account "),
        )
        if field in fields and getattr(request, field)
    ]
    return ", ".join(numbers + names)


class _Said(dict[str, Any]):
    """The fields of a question; empty for absent ones."""

    def __missing__(self, key: str) -> str:
        return ""


class _Allowance:
    """A limit per minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._minute = 0
        self._taken = 0

    def take(self) -> bool:
        """Take one; False if none is left in this minute."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._taken = minute, 0
        self._taken += 1
        return self._taken <= self._most


class AuditApi:
    """Serves `flower-nats audit`."""

    def __init__(self, database: Database) -> None:
        self._trail = AuditTrail(database)

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return {"AuditEvents": self.events, "AuditChain": self.chain}

    async def events(self, question: Map, caller: Caller) -> Map:
        """{account, action, object, outcome, since, after} -> {events}: the first after an id.

        Filters are None for all; `since` is ISO 8601. Each event has `event_id`, `at`, `hash` and the
        fields of `AuditEvent`.
        """
        since = question["since"]
        wanted = Filter(
            account=question["account"],
            action=question["action"],
            object=question["object"],
            outcome=question["outcome"],
            since=None if since is None else datetime.fromisoformat(since),
        )
        found = await self._trail.events(wanted, question["after"], _MOST_EVENTS)
        return {"events": [_written(one) for one in found]}

    async def chain(self, question: Map, caller: Caller) -> Map:
        """{} -> {last_id, last_hash, forgotten_id, forgotten_hash}: hashes in hexadecimal digits."""
        chain = await self._trail.chain()
        return {
            "last_id": chain.last_id,
            "last_hash": chain.last_hash.hex(),
            "forgotten_id": chain.forgotten_id,
            "forgotten_hash": chain.forgotten_hash.hex(),
        }


class AuditRetention:
    """Removes events by their age."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._days = days

    async def forget(self) -> None:
        """Make one pass."""
        count = await AuditTrail(self._database).forget(self._days)
        if count:
            log.info("audit_events_removed", count=count, older_than_days=self._days)
            text = f"Events of the audit trail that are older than {self._days} days: {count}."
            await note(self._database, "housekeeping", details=text)


def _written(one: ChainedEvent) -> Map:
    return {
        "event_id": one.event_id,
        "at": iso(one.at),
        **asdict(one.event),
        "hash": one.hash.hex(),
    }


async def keep_audit_events(database: Database, days: int) -> None:
    """Set for how many days the database keeps events, 0 for ever, unless our role may not."""
    trail = AuditTrail(database)
    try:
        await trail.set_bound(days)
    except NotAllowed:
        bound = await trail.bound()
        if days and (not bound or days < bound):
            log.warning(
                "audit_events_kept_longer",
                days=bound or "for ever",
                audit_retention=days,
                remedy=(
                    "To remove events earlier, the owner of the tables must run `flower-nats "
                    "migrate --audit-retention DAYS`."
                ),
            )
