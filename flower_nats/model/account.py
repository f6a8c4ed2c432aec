"""Accounts: who calls the Control API, and how they prove it.

A password or an OIDC issuer proves who a person is. The runtime then issues tokens of its own. The
database keeps only their hashes.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flower_nats.model.caller import NO_ACCOUNT_NAME

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_TOKEN_BYTES = 32
"""Random bytes of a token: nobody guesses 256 bits."""


LONGEST_TOKEN_DAYS = 3_650
"""Days for which a token of a program may be valid. People forget a token that never ends, and
others find it."""


class Role(StrEnum):
    """What an account may do in the runtime as a whole."""

    USER = "user"
    """What its federations allow."""

    OPERATOR = "operator"
    """Everything."""


class TokenKind(StrEnum):
    """What a token is for."""

    ACCESS = "access"
    """Proves who makes a call."""

    REFRESH = "refresh"
    """Gets new tokens when the access token has expired."""


@dataclass(frozen=True)
class Account:
    """Someone who may call the Control API."""

    account_id: str
    name: str
    """The name; unique, and part of the names of federations."""
    role: Role
    issuer: str
    """URL of the OIDC issuer that identifies it; empty for an account of our own."""
    created_at: datetime
    disabled_at: datetime | None
    """Since when it is disabled."""

    @property
    def is_operator(self) -> bool:
        """Whether it may do everything."""
        return self.role is Role.OPERATOR

    def log_context(self) -> Mapping[str, str]:
        """Return the fields that name this account in log lines."""
        return {"account": self.name, "account_id": self.account_id}


class BadAccountName(ValueError):
    """An account cannot have this name."""


def check_account_name(name: str) -> None:
    """Raise BadAccountName for a name that cannot be part of a federation `@account/name`."""
    if not _NAME.fullmatch(name) or name.lower() == NO_ACCOUNT_NAME:
        raise BadAccountName(
            f"{name[:80]!r} cannot be the name of an account. Remedy: use at most 63 letters, "
            f"digits, '.', '_' and '-', with a letter or digit first; not {NO_ACCOUNT_NAME!r}."
        )


def new_token(kind: str) -> str:
    """Return a random token; `kind` is a word that shows people what the token is."""
    return f"fn-{kind}-{secrets.token_urlsafe(_TOKEN_BYTES)}"


def new_refresh_token(replaced: str = "") -> str:
    """Return a refresh token with the same beginning as the token that it replaces."""
    return f"{root_of(replaced) or new_token('refresh')}.{secrets.token_urlsafe(_TOKEN_BYTES)}"


def root_of(refresh_token: str) -> str:
    """Return the beginning of all refresh tokens of a login: each opens what it has sealed."""
    return refresh_token.partition(".")[0]


def account_token_hash(token: str) -> bytes:
    """Return the hash of a token, which superlinks get and the database keeps."""
    return hashlib.sha256(token.encode()).digest()
