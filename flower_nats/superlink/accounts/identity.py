"""Which account makes a call of the Control API. No other module decides this.

A gateway brings evidence, the hash of a token, never a claim. Its other statements about accounts
are ignored. Every call asks the database, so every superlink refuses a revoked token at once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from flower_nats.model.account import Account
from flower_nats.model.caller import NO_ACCOUNT_ID, NO_ACCOUNT_NAME, Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.store.accounts import Accounts, KnownSession
from flower_nats.store.audit import note_account
from flower_nats.store.connection import Database
from flower_nats.superlink.accounts.guard import Guard
from flower_nats.superlink.codecs import InternalHandler, ProtoHandler
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME, CallerKind

_NO_ACCOUNTS = (
    "This gateway or console serves only callers with accounts (--require-accounts, or other "
    "machines reach the console), but the runtime has no accounts. Remedy: start every "
    "superlink with --accounts or --oidc-issuer."
)

_LOG_IN = "Log in with `flwr login`."


class Identity:
    """Tells the account of a caller. Without accounts, every caller has the same account."""

    def __init__(self, database: Database, *, accounts: bool) -> None:
        self._accounts = Accounts(database)
        self._required = accounts

    async def identify(self, caller: Caller) -> Caller:
        """Return the caller with its account; raises `ApiError` without a proven account."""
        if not self._required:
            if caller.accounts_required:
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, "there are no accounts", _NO_ACCOUNTS)
            return replace(
                caller,
                account_id=NO_ACCOUNT_ID,
                account_name=NO_ACCOUNT_NAME,
                is_operator=True,
            )
        if not caller.account_token:
            raise unauthenticated("no token came with the call")
        known = await self._accounts.by_token(caller.account_token)
        if known is None:
            raise unauthenticated("the token is unknown, expired or revoked")
        return _as(known, caller)

    async def identify_session(self, session_id: str, caller: Caller) -> Caller:
        """Return the caller with the account of the session in which its call began.

        The session may last longer than the token with which it began.
        """
        if not self._required:
            return await self.identify(caller)
        known = await self._accounts.by_session(session_id)
        if known is None:
            raise unauthenticated("the session has ended, or was revoked")
        return _as(known, caller)

    def guard(self, name: str, handler: ProtoHandler) -> ProtoHandler:
        """Wrap a handler of the Control API: it gets callers with a known account."""
        if BY_NAME[("Control", name)].caller is CallerKind.ANYBODY:
            return handler

        async def serve(request: Any, caller: Caller) -> ProtoMessage:
            return await handler(request, await self.identify(caller))

        return serve


class Followers:
    """Decides who may follow a run, for gateways, which serve the streams of Control themselves."""

    def __init__(self, identity: Identity, guard: Guard) -> None:
        self._identity = identity
        self._guard = guard

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return {"FollowRun": self.follow_run}

    async def follow_run(self, question: Mapping[str, Any], caller: Caller) -> Mapping[str, Any]:
        """{run_id, account_token, session, required, address} -> {session}: may a stream go on?

        `account_token` is the hash of the token that came with the call. `session` is empty at
        first, later the session from the answer, because a stream may outlast its token.
        """
        caller = replace(
            caller,
            account_token=question["account_token"],
            accounts_required=bool(question.get("required")),
        )
        session = question["session"]
        if session:
            caller = await self._identity.identify_session(session, caller)
        else:
            caller = await self._identity.identify(caller)
        note_account(caller.account_id, caller.account_name)
        request = control.StreamLogsRequest(run_id=question["run_id"])
        await self._guard.check("StreamLogs", request, caller)
        return {"session": caller.account_session}


def unauthenticated(detail: str) -> ApiError:
    """Return the refusal that makes stock clients refresh their tokens, or ask people to log in."""
    return ApiError(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED, detail, _LOG_IN)


def _as(known: KnownSession, caller: Caller) -> Caller:
    account: Account = known.account
    return replace(
        caller,
        account_id=account.account_id,
        account_name=account.name,
        is_operator=account.is_operator,
        account_session=known.session_id,
    )
