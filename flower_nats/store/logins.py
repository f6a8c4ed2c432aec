"""Open logins and failed attempts, in the database, so that every replica can serve each step."""

from dataclasses import dataclass
from datetime import datetime

from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("logins")

DEVICE_SECONDS = 600.0
"""Seconds for which a login may be confirmed."""

_MOST = 10_000
"""Logins that may wait for confirmation. Anybody may begin one; with more, old ones are dropped."""

_MOST_OF_ONE = 100
"""The same for one address. So a stranger can only end logins of the same address."""

_AGAIN_WITHIN = 30.0
"""Seconds in which tokens are given again, because the first answer may be lost."""

_ACCOUNT_FAILURES = 5
"""Wrong passwords before an account is locked."""

_ADDRESS_FAILURES = 30
"""The same for an address, which many people may share."""

_FIRST_LOCK = 30.0
"""Seconds of the first lock. Each further lock takes twice as long."""

_LONGEST_LOCK = 900.0
"""The longest lock in seconds. Strangers can lock an account, but must not lock its owner out for
good."""

_FORGET_AFTER = 3600.0
"""Seconds after which a failure no longer counts."""


@dataclass(frozen=True)
class DeviceLogin:
    """An open `flwr login`."""

    device_hash: bytes
    user_code: str
    asked_from: str
    """Address of the command, empty if unknown."""
    expires_at: datetime
    account_id: str | None
    """The account, once the login is confirmed."""
    refused_at: datetime | None
    issuer_secret: bytes | None
    """The issuer's device code, or after the confirmation the issuer's refresh token, sealed; None
    for an account of our own."""
    issuer_page: str | None
    issuer_code: str | None


class Logins:
    """The open logins."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def begin(
        self,
        device_hash: bytes,
        user_code: str,
        asked_from: str,
        seconds: float = DEVICE_SECONDS,
        *,
        issuer_secret: bytes | None = None,
        issuer_page: str | None = None,
        issuer_code: str | None = None,
    ) -> bool:
        """Store a command's login; older ones may be dropped. False if the code is in use."""
        row = await self._session.fetch_one(
            _SQL["begin"],
            device_hash=device_hash,
            user_code=user_code,
            asked_from=asked_from,
            seconds=seconds,
            issuer_secret=issuer_secret,
            issuer_page=issuer_page,
            issuer_code=issuer_code,
            most=_MOST,
            most_of_one=_MOST_OF_ONE,
        )
        return row is not None

    async def by_device(self, device_hash: bytes) -> DeviceLogin | None:
        """Return a command's login by its device code; None if it has ended."""
        return _login(await self._session.fetch_one(_SQL["by_device"], device_hash=device_hash))

    async def by_user_code(self, user_code: str) -> tuple[DeviceLogin, float] | None:
        """Return the login of a user code, and its age in seconds; None if it has ended."""
        row = await self._session.fetch_one(_SQL["by_user_code"], user_code=storable(user_code))
        login = _login(row)
        return None if row is None or login is None else (login, row["seconds_ago"])

    async def confirm(
        self, login: DeviceLogin, account_id: str, issuer_secret: bytes | None = None
    ) -> bool:
        """Set the account of a login; False if it has another, was refused or has ended."""
        row = await self._session.fetch_one(
            _SQL["confirm"],
            device_hash=login.device_hash,
            account_id=account_id,
            issuer_secret=issuer_secret,
        )
        return row is not None

    async def refuse(self, user_code: str) -> None:
        """Refuse a login that is not confirmed."""
        await self._session.execute(_SQL["refuse"], user_code=storable(user_code))

    async def issue(self, login: DeviceLogin) -> str | None:
        """Return the account that gets tokens for a login; None if it got them long ago."""
        row = await self._session.fetch_one(
            _SQL["issue"], device_hash=login.device_hash, again_within=_AGAIN_WITHIN
        )
        return None if row is None else row["account_id"]

    async def postpone_poll(self, login: DeviceLogin, seconds: float) -> None:
        """Postpone the next question to the issuer about a login by `seconds`."""
        await self._session.execute(
            _SQL["postpone_poll"], device_hash=login.device_hash, seconds=seconds
        )

    async def claim_poll(self, login: DeviceLogin, seconds: float) -> bool:
        """Claim the next question to the issuer about a login; False if claimed a moment ago."""
        row = await self._session.fetch_one(
            _SQL["claim_poll"], device_hash=login.device_hash, seconds=seconds
        )
        return row is not None

    async def attempt(self, account_name: str, address: str) -> float | None:
        """Count an attempt as a failure until `succeeded`; return the remaining lock, if any."""
        bounds = {_of_account(account_name): _ACCOUNT_FAILURES}
        if address:
            bounds[_of_address(address)] = _ADDRESS_FAILURES
        for what, most in bounds.items():
            row = await self._session.fetch_one(
                _SQL["attempt"],
                what=what,
                most=most,
                first=_FIRST_LOCK,
                longest=_LONGEST_LOCK,
                forget_after=_FORGET_AFTER,
            )
            if row is None:
                locked = await self._session.fetch_one(_SQL["locked_for"], what=what)
                return locked["seconds"] if locked else 0.0
        return None

    async def succeeded(self, account_name: str, address: str) -> None:
        """Note that an attempt was no failure."""
        await self._session.execute(_SQL["succeeded"], what=_of_account(account_name))
        if address:
            await self._session.execute(_SQL["take_back"], what=_of_address(address))

    async def drop_expired(self) -> None:
        """Remove ended logins and old failures."""
        await self._session.execute(_SQL["drop_expired"])
        await self._session.execute(_SQL["drop_old_failures"], seconds=_FORGET_AFTER)


def _of_account(name: str) -> str:
    return f"account {storable(name).lower()}"


def _of_address(address: str) -> str:
    return f"address {address}"


_FIELDS = tuple(DeviceLogin.__dataclass_fields__)


def _login(row: Row | None) -> DeviceLogin | None:
    return None if row is None else DeviceLogin(**{name: row[name] for name in _FIELDS})
