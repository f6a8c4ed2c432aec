"""Logging in: the Control API's part of `flwr login`, and that of the page for signing in.

A command asks for a login. It gets a device code, which only it knows, and the address of a page
with the login's user code. A person signs in on that page and confirms. Until then the command asks
for its tokens again and again.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from flower_nats.broker.hints import Hints
from flower_nats.logs import get_logger
from flower_nats.model.account import Account, account_token_hash, new_token, root_of
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.model.password import verify_password
from flower_nats.model.sealed import open_sealed, seal
from flower_nats.settings import OidcSettings
from flower_nats.store.accounts import REFRESH_SECONDS, Accounts, RefreshableSession, Tokens
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.logins import DEVICE_SECONDS, DeviceLogin, Logins
from flower_nats.superlink.accounts.identity import unauthenticated
from flower_nats.superlink.accounts.issuer_logins import SEEN_SECONDS, IssuerLogins
from flower_nats.superlink.codecs import InternalHandler, ProtoHandler
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

Map = Mapping[str, Any]

# Authentication types that stock clients know (flwr 1.42 `common/constant.py` AuthnType).
_NO_LOGIN = "noop"
_DEVICE_GRANT = "oidc"

_POLL_EVERY = 2
"""Seconds between a command's questions whether its login is confirmed."""

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Letters of a code: no vowels, so that it is no word, and none that looks like a digit."""

_CODE_LETTERS = 8

_AT_ONCE = 2
"""Passwords that a superlink checks at once: each takes 64 MiB and a core for a tenth of a
second."""

_ISSUER_SECONDS = 20.0
"""Seconds for which only one superlink asks the issuer about a session while others wait: longer
than the time-out of the issuer's answer."""

_ISSUER_PAUSE = 0.3
"""Seconds between two checks whether the issuer has answered."""

_UNRENEWED_SECONDS = 8 * 3600.0
"""Seconds of a login without a refresh token of the issuer, which cannot be renewed."""

_LOG_IN_AGAIN = "Run `flwr login` again."


class LoginApi:
    """Serves logins, with accounts of our own or by an issuer."""

    def __init__(
        self, database: Database, hints: Hints, *, accounts: bool, oidc: OidcSettings | None
    ) -> None:
        self._database = database
        self._enabled = accounts
        self._issuer = IssuerLogins(database, hints, oidc) if oidc else None
        self._verifying = asyncio.Semaphore(_AT_ONCE)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "GetLoginDetails": self.get_login_details,
            "GetAuthTokens": self.get_auth_tokens,
            "RefreshAuthTokens": self.refresh_auth_tokens,
        }

    def internal_handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC, for the login page."""
        return {
            "LoginUnderWay": self.login_under_way,
            "ConfirmLogin": self.confirm_login,
            "RefuseLogin": self.refuse_login,
        }

    async def get_login_details(
        self, request: control.GetLoginDetailsRequest, caller: Caller
    ) -> control.GetLoginDetailsResponse:
        """Begin a login. Without accounts there is none, and `flwr login` says so.

        The answer has the end of the page's address; gateways add the rest.
        """
        if not self._enabled:
            return control.GetLoginDetailsResponse(authn_type=_NO_LOGIN)
        device_code, user_code = new_token("device"), _new_code()
        grant = await self._issuer.begin() if self._issuer else None
        seconds = grant.seconds if grant else DEVICE_SECONDS
        begun = await Logins(self._database).begin(
            account_token_hash(device_code),
            user_code,
            caller.address,
            seconds,
            issuer_secret=seal(device_code, grant.device_code) if grant else None,
            issuer_page=grant.page if grant else None,
            issuer_code=grant.code if grant else None,
        )
        if not begun:
            raise Unavailable("the code of the login is in use")
        log.info("login_begun", address=caller.address)
        return control.GetLoginDetailsResponse(
            authn_type=_DEVICE_GRANT,
            device_code=device_code,
            verification_uri_complete=(grant and grant.complete_page) or f"?code={user_code}",
            expires_in=int(seconds),
            interval=grant.interval if grant else _POLL_EVERY,
        )

    async def get_auth_tokens(
        self, request: control.GetAuthTokensRequest, caller: Caller
    ) -> control.GetAuthTokensResponse:
        """Return the tokens of a login once it is confirmed; before that, none."""
        if not self._enabled:
            raise ApiError(ErrorCode.NO_ACCOUNT_AUTH, "there are no accounts")
        device_code = request.device_code
        login = await Logins(self._database).by_device(account_token_hash(device_code))
        if login is not None and _state(login) == "elsewhere" and self._issuer is not None:
            login = await self._issuer.poll(login, device_code)
        if login is None:
            raise _refused("the login has ended", f"The login has ended. {_LOG_IN_AGAIN}")
        if login.refused_at is not None:
            raise _refused("the login was refused", "The login was refused.")
        if login.account_id is None:
            return control.GetAuthTokensResponse()

        async def issue(transaction: Transaction) -> tuple[Tokens, Account]:
            return await _issue(transaction, login, device_code)

        tokens, account = await self._database.transaction(issue)
        log.info("logged_in", **account.log_context(), address=caller.address)
        return control.GetAuthTokensResponse(
            access_token=tokens.access, refresh_token=tokens.refresh
        )

    async def refresh_auth_tokens(
        self, request: control.RefreshAuthTokensRequest, caller: Caller
    ) -> control.RefreshAuthTokensResponse:
        """Return new tokens for a refresh token."""
        if not self._enabled or not request.refresh_token:
            raise unauthenticated("no refresh token came, or there are no accounts")
        token = request.refresh_token

        deadline = time.monotonic() + _ISSUER_SECONDS
        while True:
            found = await self._database.transaction(lambda session: _refresh(session, token))
            if isinstance(found, Tokens):
                break
            if found is None:
                raise unauthenticated("the refresh token is unknown, expired or revoked")
            if found.is_stolen:
                log.warning(
                    "refresh_token_used_twice",
                    account_id=found.account_id,
                    address=caller.address,
                    meaning="Somebody has a copy of the refresh token. The login is ended.",
                )
                raise unauthenticated("the refresh token was used twice")
            await self._ask_issuer(found, token, deadline)
        return control.RefreshAuthTokensResponse(
            access_token=found.access, refresh_token=found.refresh
        )

    async def _ask_issuer(self, session: RefreshableSession, token: str, deadline: float) -> None:
        """Ask the issuer whether a session goes on, unless another superlink is asking already."""
        accounts = Accounts(self._database)
        if self._issuer is None:
            await accounts.end_session(session.session_id)
        elif await accounts.claim_issuer(session.session_id, _ISSUER_SECONDS):
            await self._issuer.renew(session, token)
        elif time.monotonic() < deadline:
            await asyncio.sleep(_ISSUER_PAUSE)
        else:
            raise Unavailable("another superlink has asked the issuer, and got no answer yet")

    async def login_under_way(self, question: Map, caller: Caller) -> Map:
        """{user_code} -> {state, asked_from, seconds_ago, page, code}: a login, for display.

        `state` is `unknown`, `open`, `confirmed`, `refused` or `elsewhere`: it is confirmed at an
        issuer's page, with the issuer's code.
        """
        found = await Logins(self._database).by_user_code(question["user_code"])
        if found is None or not self._enabled:
            return {"state": "unknown"}
        login, seconds_ago = found
        return {
            "state": _state(login),
            "asked_from": login.asked_from,
            "seconds_ago": seconds_ago,
            "page": login.issuer_page,
            "code": login.issuer_code,
        }

    async def confirm_login(self, question: Map, caller: Caller) -> Map:
        """{user_code, name, password, address} -> {outcome, seconds}: a person signs in and confirms.

        `outcome` is `confirmed`, `wrong`, `locked` (for so many `seconds`) or `unknown`.
        """
        name, address = question["name"], question["address"]
        logins = Logins(self._database)
        found = await logins.by_user_code(question["user_code"])
        if found is None or not self._enabled or _state(found[0]) != "open":
            return {"outcome": "unknown", "seconds": 0.0}
        counted = _whose_failures(address)
        locked_for = await logins.attempt(name, counted)
        if locked_for is not None:
            log.warning("login_locked", name=name, address=address, seconds=round(locked_for))
            return {"outcome": "locked", "seconds": locked_for}
        account = await self._proven(name, question["password"])
        if account is None:
            log.warning("login_failed", name=name, address=address)
            return {"outcome": "wrong", "seconds": 0.0}
        await logins.succeeded(name, counted)
        if not await logins.confirm(found[0], account.account_id):
            return {"outcome": "unknown", "seconds": 0.0}
        log.info("login_confirmed", **account.log_context(), address=address)
        return {"outcome": "confirmed", "seconds": 0.0}

    async def refuse_login(self, question: Map, caller: Caller) -> Map:
        """{user_code, address} -> {}: a person says that a login is not theirs."""
        await Logins(self._database).refuse(question["user_code"])
        log.warning("login_refused", address=question["address"])
        return {}

    async def _proven(self, name: str, password: str) -> Account | None:
        """Return the account that a password proves; takes equally long without an account."""
        accounts = Accounts(self._database)
        account = await accounts.by_name(name)
        password_hash = None if account is None else await accounts.password_hash(account)
        async with self._verifying:
            proven = await asyncio.to_thread(verify_password, password_hash, password)
        return account if proven else None


async def _issue(
    transaction: Transaction, login: DeviceLogin, device_code: str
) -> tuple[Tokens, Account]:
    accounts = Accounts(transaction)
    account_id = await Logins(transaction).issue(login)
    account = await accounts.by_id(account_id) if account_id else None
    if account is None:
        raise _refused("its tokens are given out", f"The login is over. {_LOG_IN_AGAIN}")
    if account.disabled_at is not None:
        raise _refused("the account is disabled", f"The account {account.name} is disabled.")
    tokens, seconds, issuer_token = Tokens.new(), REFRESH_SECONDS, None
    if login.issuer_secret is not None:
        secret = open_sealed(device_code, login.issuer_secret)
        issuer_token = seal(root_of(tokens.refresh), secret)
    elif account.issuer:
        seconds = _UNRENEWED_SECONDS
    await accounts.open_login(account.account_id, tokens, issuer_token, seconds)
    return tokens, account


async def _refresh(transaction: Transaction, token: str) -> Tokens | RefreshableSession | None:
    """Return new tokens for a refresh token; the session if the token is stolen (this ends the
    session) or if the issuer has to be asked first; None for an invalid token."""
    accounts = Accounts(transaction)
    session = await accounts.by_refresh_token(token)
    if session is None:
        return None
    if session.is_stolen:
        await accounts.end_session(session.session_id)
        return session
    if session.issuer_token is not None and session.issuer_seen_for > SEEN_SECONDS:
        return session
    return await accounts.refresh(session, token)


def _state(login: DeviceLogin) -> str:
    if login.refused_at is not None:
        return "refused"
    if login.account_id is not None:
        return "confirmed"
    return "open" if login.issuer_page is None else "elsewhere"


def _whose_failures(address: str) -> str:
    """Return the address for counting wrong passwords; empty for loopback addresses.

    Many people may sign in through proxies and tunnels on this machine.
    """
    with suppress(ValueError):
        return "" if ip_address(address).is_loopback else address
    return address


def _refused(detail: str, text: str) -> ApiError:
    """Return the refusal that ends a `flwr login`, which would otherwise ask again."""
    return ApiError(ErrorCode.NO_PERMISSIONS, detail, text)


def _new_code() -> str:
    letters = "".join(secrets.choice(_LETTERS) for _ in range(_CODE_LETTERS))
    return f"{letters[:4]}-{letters[4:]}"
