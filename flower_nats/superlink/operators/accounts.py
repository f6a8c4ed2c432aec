"""The management of accounts by an operator, for `flower-nats account`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flower_nats.broker.hints import Hints
from flower_nats.logs import get_logger
from flower_nats.model.account import (
    LONGEST_TOKEN_DAYS,
    Account,
    BadAccountName,
    Role,
    check_account_name,
)
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.store.accounts import Accounts, NamedToken
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.idempotency import once
from flower_nats.superlink.codecs import InternalHandler

log = get_logger(__name__)

Map = Mapping[str, Any]

_DAY = 24 * 60 * 60.0


class AccountsAdmin:
    """Serves `flower-nats account`."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._accounts = Accounts(database)
        self._hints = hints

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return {
            "CreateAccount": self.create,
            "ListAccounts": self.list,
            "DisableAccount": self.disable,
            "EnableAccount": self.enable,
            "SetAccountRole": self.set_role,
            "SetAccountPassword": self.set_password,
            "CreateAccountToken": self.create_token,
            "ListAccountTokens": self.list_tokens,
            "RevokeAccountToken": self.revoke_token,
        }

    async def create(self, question: Map, caller: Caller) -> Map:
        """{name, role, password_hash} -> {}: a new account of our own; None for no password.

        The command hashes the password, which is never sent.
        """
        name, role = question["name"], Role(question["role"])
        password_hash: str | None = question["password_hash"]
        try:
            check_account_name(name)
        except BadAccountName as exc:
            raise ApiError(ErrorCode.MALFORMED_REQUEST, str(exc)) from exc

        async def create(transaction: Transaction) -> bytes:
            account = await Accounts(transaction).create(name, role)
            if account is None:
                text = f"There is an account {name!r} already. Case makes no difference."
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, text)
            if password_hash:
                await Accounts(transaction).set_password(account, password_hash)
            log.info("account_created", **account.log_context(), role=str(role))
            return b""

        await once(self._database, caller.request_id, create)
        return {}

    async def list(self, question: Map, caller: Caller) -> Map:
        """{} -> {accounts: [{account_id, name, role, issuer, created_at, disabled_at}]}, by name."""
        return {"accounts": [_told(account) for account in await self._accounts.all()]}

    async def disable(self, question: Map, caller: Caller) -> Map:
        """{name} -> {}: disable an account."""

        async def disable(transaction: Transaction) -> Account:
            account = await _find(transaction, question["name"])
            await Accounts(transaction).disable(account)
            return account

        account = await self._database.transaction(disable)
        await self._hints.accounts_changed()
        log.info("account_disabled", **account.log_context())
        return {}

    async def enable(self, question: Map, caller: Caller) -> Map:
        """{name} -> {}: enable an account again."""
        account = await _find(self._database, question["name"])
        await self._accounts.enable(account)
        log.info("account_enabled", **account.log_context())
        return {}

    async def set_role(self, question: Map, caller: Caller) -> Map:
        """{name, role} -> {}: change what an account may do."""
        account, role = await _find(self._database, question["name"]), Role(question["role"])
        await self._accounts.set_role(account, role)
        await self._hints.accounts_changed()
        log.info("account_role_set", **account.log_context(), role=str(role))
        return {}

    async def set_password(self, question: Map, caller: Caller) -> Map:
        """{name, password_hash} -> {}: another password; logins with the old one end."""

        async def set_password(transaction: Transaction) -> Account:
            account = await _find(transaction, question["name"])
            if account.issuer:
                text = f"{account.name} has no password here: it logs in at {account.issuer}."
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, text)
            await Accounts(transaction).set_password(account, question["password_hash"])
            return account

        account = await self._database.transaction(set_password)
        await self._hints.accounts_changed()
        log.info("account_password_set", **account.log_context())
        return {}

    async def create_token(self, question: Map, caller: Caller) -> Map:
        """{name, token, token_hash, days} -> {}: a token for a program, called `token`.

        The command creates and shows the token. Here only its hash is known.
        """
        name, days = question["token"], float(question["days"])
        token_hash: bytes = question["token_hash"]
        # NaN is in no range.
        if not 0 < days <= LONGEST_TOKEN_DAYS:
            text = f"A token must be valid for more than 0 and at most {LONGEST_TOKEN_DAYS} days."
            raise ApiError(ErrorCode.MALFORMED_REQUEST, text, text)

        async def create(transaction: Transaction) -> bytes:
            account = await _find(transaction, question["name"])
            accounts = Accounts(transaction)
            if not await accounts.add_named_token(account, name, token_hash, days * _DAY):
                text = f"{account.name} has a token {name!r} already. Remedy: choose another."
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, text)
            log.info("account_token_created", **account.log_context(), token_name=name)
            return b""

        await once(self._database, caller.request_id, create)
        return {}

    async def list_tokens(self, question: Map, caller: Caller) -> Map:
        """{name} -> {tokens: [{name, created_at, expires_at}]}, those first that end first."""
        account = await _find(self._database, question["name"])
        return {"tokens": [_told_token(one) for one in await self._accounts.named_tokens(account)]}

    async def revoke_token(self, question: Map, caller: Caller) -> Map:
        """{name, token} -> {}: revoke a token."""
        name = question["token"]

        async def revoke(transaction: Transaction) -> bytes:
            account = await _find(transaction, question["name"])
            if not await Accounts(transaction).end_named_token(account, name):
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, f"{account.name} has no token {name!r}.")
            log.info("account_token_revoked", **account.log_context(), token_name=name)
            return b""

        await once(self._database, caller.request_id, revoke)
        await self._hints.accounts_changed()
        return {}


async def _find(session: Database | Transaction, name: str) -> Account:
    account = await Accounts(session).by_name(name)
    if account is None:
        text = f"There is no account {name!r}. `flower-nats account list` shows all accounts."
        raise ApiError(ErrorCode.ACCOUNTS_NOT_FOUND, text)
    return account


def _told(account: Account) -> Map:
    return {
        "account_id": account.account_id,
        "name": account.name,
        "role": str(account.role),
        "issuer": account.issuer,
        "created_at": _moment(account.created_at),
        "disabled_at": account.disabled_at and _moment(account.disabled_at),
    }


def _told_token(token: NamedToken) -> Map:
    return {
        "name": token.name,
        "created_at": _moment(token.created_at),
        "expires_at": _moment(token.expires_at),
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
