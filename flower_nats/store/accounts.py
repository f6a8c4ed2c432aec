"""Accounts, their sessions and their tokens, in the database."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from flower_nats.model.account import (
    Account,
    Role,
    TokenKind,
    account_token_hash,
    new_refresh_token,
    new_token,
)
from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("accounts")

_FIELDS = tuple(Account.__dataclass_fields__)

ACCESS_SECONDS = 900.0
"""Seconds for which an access token is valid. A stolen token works as long."""

REFRESH_SECONDS = 30 * 24 * 3600.0
"""Seconds without a call after which a person has to log in again."""

_AGAIN_WITHIN = 60.0
"""Seconds in which a replaced refresh token still gives tokens: for a second command at the same
time, or if the answer was lost. Later use means that the token was stolen."""


@dataclass(frozen=True)
class KnownSession:
    """A valid session and its account."""

    account: Account
    session_id: str


@dataclass(frozen=True)
class Tokens:
    """The tokens that a command gets for a login."""

    access: str
    refresh: str

    @classmethod
    def new(cls, replaced: str = "") -> "Tokens":
        """Return new tokens, which replace a refresh token if one is given."""
        return cls(new_token("access"), new_refresh_token(replaced))


@dataclass(frozen=True)
class RefreshableSession:
    """A session that was found by its refresh token."""

    session_id: str
    account_id: str
    issuer_token: bytes | None
    """The issuer's refresh token, sealed; None if the issuer gave none."""
    is_of_issuer: bool
    """Whether an issuer identifies the account."""
    issuer_seen_for: float
    """Seconds since the issuer last confirmed it."""
    replaced_for: float
    """Seconds since this refresh token was replaced; 0 if it was not."""

    @property
    def is_stolen(self) -> bool:
        """Whether the token is used long after it was replaced, by its owner or by a thief."""
        return self.replaced_for > _AGAIN_WITHIN


@dataclass(frozen=True)
class NamedToken:
    """A token that has a name, without the token itself."""

    name: str
    created_at: datetime
    expires_at: datetime


class Accounts:
    """The accounts of this runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self, name: str, role: Role, issuer: str = "", subject: str = ""
    ) -> Account | None:
        """Store an account, by default one of our own; None if the name or the subject is taken."""
        account_id = str(uuid.uuid4())
        row = await self._session.fetch_one(
            _SQL["create"],
            account_id=account_id,
            name=name,
            issuer=issuer,
            subject=subject or account_id,
            role=str(role),
        )
        return _account(row)

    async def all(self) -> list[Account]:
        """Return all accounts by name."""
        rows = await self._session.fetch_all(_SQL["list"])
        return [found for row in rows if (found := _account(row)) is not None]

    async def by_name(self, name: str) -> Account | None:
        """Return an account by name, in any case of letters; None if there is none."""
        return _account(await self._session.fetch_one(_SQL["by_name"], name=storable(name)))

    async def set_role(self, account: Account, role: Role) -> None:
        """Change what an account may do."""
        await self._session.execute(_SQL["set_role"], account_id=account.account_id, role=str(role))

    async def disable(self, account: Account) -> None:
        """Disable an account, and revoke its sessions and tokens."""
        await self._session.execute(_SQL["disable"], account_id=account.account_id)
        await self.end_sessions(account)

    async def enable(self, account: Account) -> None:
        """Enable an account again. It has to log in anew."""
        await self._session.execute(_SQL["enable"], account_id=account.account_id)

    async def by_token(self, token_hash: bytes) -> KnownSession | None:
        """Return the session of an access token; None if the token is not valid."""
        return _known(await self._session.fetch_one(_SQL["by_token"], token_hash=token_hash))

    async def by_session(self, session_id: str) -> KnownSession | None:
        """Return a session with its account; None if it has ended."""
        return _known(await self._session.fetch_one(_SQL["by_session"], session_id=session_id))

    async def add_named_token(
        self, account: Account, name: str, token_hash: bytes, seconds: float
    ) -> bool:
        """Store a token for a program; False if the account has one with this name."""
        await self._session.execute(
            _SQL["end_expired_named"], account_id=account.account_id, name=name
        )
        row = await self._session.fetch_one(
            _SQL["open_session"],
            session_id=str(uuid.uuid4()),
            account_id=account.account_id,
            name=name,
            seconds=seconds,
            issuer_token=None,
        )
        if row is None:
            return False
        await self._add_token(row["session_id"], TokenKind.ACCESS, token_hash, seconds)
        return True

    async def named_tokens(self, account: Account) -> list[NamedToken]:
        """Return the named tokens of an account, by their end."""
        rows = await self._session.fetch_all(_SQL["named_sessions"], account_id=account.account_id)
        return [NamedToken(**row) for row in rows]

    async def end_named_token(self, account: Account, name: str) -> bool:
        """Revoke a token by its name; False if there is none."""
        row = await self._session.fetch_one(
            _SQL["end_named"], account_id=account.account_id, name=name
        )
        return row is not None

    async def by_id(self, account_id: str) -> Account | None:
        """Return an account; None if there is none."""
        return _account(await self._session.fetch_one(_SQL["by_id"], account_id=account_id))

    async def password_hash(self, account: Account) -> str | None:
        """Return the hash of its password; None if it has no password here or is disabled."""
        row = await self._session.fetch_one(_SQL["password"], account_id=account.account_id)
        return None if row is None else row["password_hash"]

    async def set_password(self, account: Account, password_hash: str) -> None:
        """Set an account's password, and end its logins. Named tokens stay valid."""
        await self._session.execute(
            _SQL["set_password"], account_id=account.account_id, password_hash=password_hash
        )
        await self._session.execute(_SQL["end_logins"], account_id=account.account_id)

    async def open_login(
        self,
        account_id: str,
        tokens: Tokens,
        issuer_token: bytes | None = None,
        seconds: float = REFRESH_SECONDS,
    ) -> None:
        """Store a new session with its tokens."""
        session_id = str(uuid.uuid4())
        await self._session.fetch_one(
            _SQL["open_session"],
            session_id=session_id,
            account_id=account_id,
            name=None,
            seconds=seconds,
            issuer_token=issuer_token,
        )
        await self._let_in(session_id, tokens)

    async def by_refresh_token(self, token: str) -> RefreshableSession | None:
        """Return the session of a refresh token, locked until the transaction ends."""
        row = await self._session.fetch_one(
            _SQL["by_refresh_token"], token_hash=account_token_hash(token)
        )
        return None if row is None else RefreshableSession(**row)

    async def refresh(self, session: RefreshableSession, token: str) -> Tokens:
        """Replace a refresh token by new tokens, and return them."""
        await self._session.execute(_SQL["replace_token"], token_hash=account_token_hash(token))
        if session.issuer_token is not None or not session.is_of_issuer:
            await self._session.execute(
                _SQL["prolong"], session_id=session.session_id, seconds=REFRESH_SECONDS
            )
        tokens = Tokens.new(token)
        await self._let_in(session.session_id, tokens)
        return tokens

    async def by_subject(self, issuer: str, subject: str) -> Account | None:
        """Return the account of a person by the issuer's subject; None if there is none."""
        row = await self._session.fetch_one(_SQL["by_subject"], issuer=issuer, subject=subject)
        return _account(row)

    async def claim_issuer(self, session_id: str, seconds: float) -> bool:
        """Claim the task to ask the issuer about a session; False if another superlink has it."""
        row = await self._session.fetch_one(
            _SQL["claim_issuer"], session_id=session_id, seconds=seconds
        )
        return row is not None

    async def leave_issuer(self, session_id: str) -> None:
        """Give the claim to ask the issuer about a session back."""
        await self._session.execute(_SQL["leave_issuer"], session_id=session_id)

    async def issuer_answered(self, session_id: str, issuer_token: bytes) -> None:
        """Store the issuer's new refresh token for a session."""
        await self._session.execute(
            _SQL["issuer_answered"], session_id=session_id, issuer_token=issuer_token
        )

    async def end_session(self, session_id: str) -> None:
        """Revoke one session."""
        await self._session.execute(_SQL["end_session"], session_id=session_id)

    async def _let_in(self, session_id: str, tokens: Tokens) -> None:
        for token, kind, seconds in (
            (tokens.access, TokenKind.ACCESS, ACCESS_SECONDS),
            (tokens.refresh, TokenKind.REFRESH, REFRESH_SECONDS),
        ):
            await self._add_token(session_id, kind, account_token_hash(token), seconds)

    async def end_sessions(self, account: Account) -> None:
        """Revoke all sessions and tokens of an account."""
        await self._session.execute(_SQL["end_all"], account_id=account.account_id)

    async def drop_expired(self) -> None:
        """Remove expired sessions and tokens."""
        await self._session.execute(_SQL["drop_expired_sessions"])
        await self._session.execute(_SQL["drop_expired_tokens"])

    async def _add_token(
        self, session_id: str, kind: TokenKind, token_hash: bytes, seconds: float
    ) -> None:
        await self._session.execute(
            _SQL["add_token"],
            token_hash=token_hash,
            session_id=session_id,
            kind=str(kind),
            seconds=seconds,
        )


def _account(row: Row | None) -> Account | None:
    if row is None:
        return None
    return Account(**{name: row[name] for name in _FIELDS} | {"role": Role(row["role"])})


def _known(row: Row | None) -> KnownSession | None:
    account = _account(row)
    return None if row is None or account is None else KnownSession(account, row["session_id"])
