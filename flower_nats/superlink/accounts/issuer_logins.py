"""Logins by an OIDC issuer: it identifies a person, and the runtime then issues its own tokens.

The issuer's secrets for a login (a device code, then a refresh token) are sealed with our own
token, which only the command has.
"""

from collections.abc import Mapping
from typing import Any

from flower_nats.broker.hints import Hints
from flower_nats.logs import get_logger
from flower_nats.model.account import Account, Role, root_of
from flower_nats.model.audit import ChainedEvent
from flower_nats.model.claims import name_from, role_from
from flower_nats.model.errors import ApiError
from flower_nats.model.sealed import CannotOpen, open_sealed, seal
from flower_nats.settings import OidcSettings
from flower_nats.store.accounts import Accounts, RefreshableSession
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.logins import DeviceLogin, Logins
from flower_nats.superlink.accounts.audit import record_of_issuer, tell
from flower_nats.superlink.accounts.oidc import (
    DeviceGrant,
    Grant,
    GrantPending,
    GrantRefused,
    Issuer,
)

log = get_logger(__name__)

SEEN_SECONDS = 60.0
"""Seconds for which the issuer's answer about a login is valid."""

_CLAIM_SECONDS = 30.0
"""Seconds for which only one superlink asks about a login: longer than an answer may take. An
issuer gives a refresh token once, and ends a login that uses an old one."""

_PAUSE = 1.0
"""Seconds between two questions about an open login."""

_SLOWER_PAUSE = 10.0
"""The same after the issuer has asked to slow down."""


_Change = tuple[str, Role]
"""A change of an account, by its name in the audit trail, with the new role."""


class IssuerLogins:
    """Asks the issuer about logins."""

    def __init__(self, database: Database, hints: Hints, settings: OidcSettings) -> None:
        self._database = database
        self._hints = hints
        self._settings = settings
        self._issuer = Issuer(settings)

    async def begin(self) -> DeviceGrant:
        """Begin a login at the issuer."""
        return await self._issuer.begin()

    async def poll(self, login: DeviceLogin, device_code: str) -> DeviceLogin | None:
        """Ask about a login that is not confirmed; return its new state."""
        logins = Logins(self._database)
        if login.issuer_secret is None or not await logins.claim_poll(login, _CLAIM_SECONDS):
            return login
        pause = _PAUSE
        try:
            grant = await self._issuer.poll(open_sealed(device_code, login.issuer_secret))
            await self._confirm(login, grant, device_code)
        except GrantPending as exc:
            pause = _SLOWER_PAUSE if exc.slow_down else _PAUSE
        except (GrantRefused, CannotOpen) as exc:
            log.warning("login_refused", issuer=self._settings.url, reason=str(exc))
            await logins.refuse(login.user_code)
        finally:
            await logins.postpone_poll(login, pause)
        return await logins.by_device(login.device_hash)

    async def renew(self, session: RefreshableSession, refresh_token: str) -> None:
        """Ask whether a session goes on; end it if the issuer refuses.

        Raises `ApiError` if the issuer does not answer; then nothing has changed.
        """
        accounts, root = Accounts(self._database), root_of(refresh_token)
        try:
            grant = await self._issuer.refresh(open_sealed(root, session.issuer_token or b""))
            await self._see_again(session, grant)
        except (GrantRefused, CannotOpen) as exc:
            log.warning("login_ended", account_id=session.account_id, reason=str(exc))
            await accounts.end_session(session.session_id)
            await self._hints.accounts_changed()
        except ApiError:
            await accounts.leave_issuer(session.session_id)
            raise
        else:
            await accounts.issuer_answered(session.session_id, seal(root, grant.refresh_token))

    async def _confirm(self, login: DeviceLogin, grant: Grant, device_code: str) -> None:
        if not grant.claims:
            raise GrantRefused("it gave no ID token; is the scope openid asked for?")
        secret = seal(device_code, grant.refresh_token) if grant.refresh_token else None

        async def confirm(transaction: Transaction) -> tuple[Account, list[ChainedEvent]]:
            account, changes = await self._account(transaction, grant.claims)
            await Logins(transaction).confirm(login, account.account_id, secret)
            return account, await _recorded(transaction, account, changes)

        account, recorded = await self._database.transaction(confirm)
        _tell(recorded)
        log.info("login_confirmed", **account.log_context(), issuer=self._settings.url)

    async def _see_again(self, session: RefreshableSession, grant: Grant) -> None:
        """Note what the issuer now says about a person, if anything."""
        if not grant.claims:
            return

        async def see(transaction: Transaction) -> tuple[Account, list[ChainedEvent]]:
            account, changes = await self._account(transaction, grant.claims)
            return account, await _recorded(transaction, account, changes)

        account, recorded = await self._database.transaction(see)
        _tell(recorded)
        if account.account_id != session.account_id:
            raise GrantRefused("it speaks of another person")

    async def _account(
        self, transaction: Transaction, claims: Mapping[str, Any]
    ) -> tuple[Account, list[_Change]]:
        """Return a person's account with the role of the groups; create one for a new person.

        Also return the changes that were needed.
        """
        accounts, role = Accounts(transaction), role_from(claims, self._settings)
        subject, changes = str(claims["sub"]), list[_Change]()
        wanted, number = name_from(claims, self._settings), 1
        while (account := await accounts.by_subject(self._settings.url, subject)) is None:
            name = wanted if number == 1 else f"{wanted}-{number}"
            first = role or Role.USER
            if await accounts.create(name, first, self._settings.url, subject) is not None:
                changes.append(("CreateAccount", first))
            number += 1
        if role is not None and role is not account.role:
            await accounts.set_role(account, role)
            log.info("account_role_set", **account.log_context(), role=str(role))
            changes.append(("SetAccountRole", role))
        return account, changes


async def _recorded(
    transaction: Transaction, account: Account, changes: list[_Change]
) -> list[ChainedEvent]:
    return [
        await record_of_issuer(transaction, action, f"account {account.name}, {role}")
        for action, role in changes
    ]


def _tell(recorded: list[ChainedEvent]) -> None:
    for event in recorded:
        tell(event)
