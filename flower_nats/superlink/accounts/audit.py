"""The audit trail: which calls become events, who reads them, and when they are removed.

The table of rights says which calls of Control change something: each becomes an event, and so does
every refusal of any call. What operators do with `flower-nats` is recorded by name. Contents of
messages, apps and passwords are never in an event.
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
"""The account of a call that nothing proves one for."""

_OPERATOR = "(flower-nats)"
"""The account of what is done with the `flower-nats` command, which proves itself to NATS."""

_ISSUER = "(issuer)"
"""The account of what changes by what an OIDC issuer says of a person."""

_STRANGERS_A_MINUTE = 60
"""Refusals of calls without an account that a superlink records in a minute: whoever reaches Control
could fill the database otherwise. Its log has all."""

_ON_THE_PAGE = ("ConfirmLogin", "RefuseLogin")
"""What a browser asks for that has proved nothing, unless its login is confirmed."""

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
"""The internal calls that become events, each with what it is about."""


_FOLLOWING = {"FollowRun": "run {run_id}"}
"""What gateways ask for the streams of Control that they serve themselves: its refusals are events."""

_ACTIONS = {"FollowRun": "StreamLogs"}
"""What people call an internal call: one of Control's that it is part of."""


class Auditor:
    """Makes events of calls."""

    def __init__(self, database: Database, identity: Identity) -> None:
        self._database = database
        self._identity = identity
        self._strangers = _Allowance(_STRANGERS_A_MINUTE)

    def guard(self, name: str, handler: ProtoHandler) -> ProtoHandler:
        """Have a handler of Control see callers whose account is known, and what they do recorded."""
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
        """Have what operators, the login page and the console do recorded."""
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
        """Answer a call by awaiting `serving`; a refusal is recorded here, all else by `ended`."""
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
            # The command asks again and again until the login is confirmed.
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
        # Nothing proves an account, so anybody may have made the call.
        if event.account_name == _NOBODY and self._is_left_out(event):
            return
        try:
            await self._record(attempt)
        except Unavailable as exc:
            # The caller hears why the call was refused, which may be that nothing can be stored.
            log.warning("audit_not_stored", reason=exc.detail, **asdict(event))
            return
        if attempt.recorded is not None:
            tell(attempt.recorded)

    def _is_left_out(self, event: AuditEvent) -> bool:
        """Whether strangers have made so many events that this becomes none; the log has it then."""
        if self._strangers.take():
            return False
        log.warning("audit_left_out", address=event.address, action=event.action)
        return True

    async def _record(self, attempt: Attempt) -> None:
        """Add an event, unless the request has one: a gateway asks again whose answer was lost."""
        event = attempt.event

        async def add(transaction: Transaction) -> ChainedEvent | None:
            if event.request_id and await AuditTrail(transaction).is_known(event):
                return None
            return await append(transaction, event)

        attempt.recorded = await self._database.transaction(add)


def _keep_caller(handler: ProtoHandler) -> ProtoHandler:
    """Note whose call it is, once that is known."""

    async def serve(request: Any, caller: Caller) -> ProtoMessage:
        note_account(caller.account_id, caller.account_name)
        return await handler(request, caller)

    return serve


def _event(name: str, about: str, caller: Caller) -> AuditEvent:
    """Return the event of a call, whose account is not known yet."""
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
    """Return whose deed a call is before anything else tells."""
    if service == OPERATOR:
        return _OPERATOR
    return str(question["name"]) if name == "ConfirmLogin" else _NOBODY


async def record_of_issuer(transaction: Transaction, action: str, about: str) -> ChainedEvent:
    """Add what the issuer changes during a call, which has an event of its own; `tell` it afterwards."""
    attempt = ATTEMPT.get()
    assert attempt is not None, "a call of Control is being served"
    said = replace(
        attempt.event, account_id=_NOBODY, account_name=_ISSUER, action=action, object=about
    )
    return await append(transaction, said)


def tell(recorded: ChainedEvent) -> None:
    """Say it in the log as well, which is kept elsewhere: with its hash, the log proves the database."""
    log.info(
        "audit", event_id=recorded.event_id, hash=recorded.hash.hex(), **asdict(recorded.event)
    )


def _object_of(request: Any) -> str:
    """Return what a request of Control is about: ids and names alone, nothing else that it has."""
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
    """What a question says; of what it leaves out, nothing."""

    def __missing__(self, key: str) -> str:
        return ""


class _Allowance:
    """So many a minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._minute = 0
        self._taken = 0

    def take(self) -> bool:
        """Take one; False if there is none left in this minute."""
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
        """{account, action, object, outcome, since, after} -> {events}: the first ones after an id.

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
    """Have the database keep events for so many days, 0 for ever, unless another role has the say."""
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
