"""Accounts for tests and benchmarks: made in the database, with the metadata that clients send."""

from __future__ import annotations

from dataclasses import dataclass

from flower_nats.model.account import Account, Role, account_token_hash, new_token
from flower_nats.store.accounts import Accounts
from flower_nats.store.connection import Database, Transaction
from harness.channels import Metadata, WireName


@dataclass(frozen=True)
class LoggedIn:
    """An account and one of its tokens."""

    account: Account
    token: str

    @property
    def token_hash(self) -> bytes:
        """The hash that a gateway sends to superlinks in place of the token."""
        return account_token_hash(self.token)

    def metadata(self, wire: WireName) -> Metadata:
        """Return the metadata that a client of this account sends with its calls."""
        if wire == "http":
            return [("authorization", f"Bearer {self.token}")]
        return [("flwr-oidc-access-token", self.token), ("flwr-oidc-refresh-token", "none")]


async def log_in(
    database: Database, name: str, role: Role = Role.USER, *, seconds: float = 3600.0
) -> LoggedIn:
    """Create an account with a token that is called `test`."""
    token = new_token("token")

    async def create(transaction: Transaction) -> Account:
        accounts = Accounts(transaction)
        account = await accounts.create(name, role)
        assert account is not None, f"there is an account {name} already"
        assert await accounts.add_named_token(account, "test", account_token_hash(token), seconds)
        return account

    return LoggedIn(await database.transaction(create), token)
