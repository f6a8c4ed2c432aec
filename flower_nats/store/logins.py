"""Logins under way, and those that failed, in the database: any replica does any step of one."""

from dataclasses import dataclass
from datetime import datetime

from flower_nats.store.connection import Row, Session, storable
from flower_nats.store.queries import load

_SQL = load("logins")

DEVICE_SECONDS = 600.0
"""Seconds for which a login may be confirmed."""

_MOST = 10_000
"""Logins that wait to be confirmed, at once: anybody may begin one. Beyond, old ones give way."""

_MOST_OF_ONE = 100
"""Of these, from one address: so a stranger puts an end to logins of the same address alone."""

_AGAIN_WITHIN = 30.0
"""Seconds in which tokens are given out once more: the answer that had the first may be lost."""

_ACCOUNT_FAILURES = 5
"""Passwords that may be wrong for an account before it is locked."""

_ADDRESS_FAILURES = 30
"""The same for an address, which many people may share."""

_FIRST_LOCK = 30.0
"""Seconds of the first lock; each further one takes twice as long."""

_LONGEST_LOCK = 900.0
"""Seconds of a lock at most: strangers can lock an account, and must not keep its owner out for good."""

_FORGET_AFTER = 3600.0
"""Seconds after a failure from which it counts no more."""


@dataclass(frozen=True)
class DeviceLogin:
    """A `flwr login` under way."""

    device_hash: bytes
    user_code: str
    asked_from: str
    """Address of the command, empty if that is not known."""
    expires_at: datetime
    account_id: str | None
    """Whose login it is, once that is confirmed."""
    refused_at: datetime | None
    issuer_secret: bytes | None
    """What the issuer knows it by, and once it is confirmed the refresh token of the issuer, sealed;
    None for an account of our own."""
    issuer_page: str | None
    issuer_code: str | None


class Logins:
    """Logins under way."""

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
        """Note that a command asks for a login; others may give way. False if the code is in use."""
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
        """Return the login that a command has begun; None if it has ended."""
        return _login(await self._session.fetch_one(_SQL["by_device"], device_hash=device_hash))

    async def by_user_code(self, user_code: str) -> tuple[DeviceLogin, float] | None:
        """Return the login of a code, and how many seconds ago it was begun; None if it has ended."""
        row = await self._session.fetch_one(_SQL["by_user_code"], user_code=storable(user_code))
        login = _login(row)
        return None if row is None or login is None else (login, row["seconds_ago"])

    async def confirm(
        self, login: DeviceLogin, account_id: str, issuer_secret: bytes | None = None
    ) -> bool:
        """Say whose login it is; False if it has another one, was refused or has ended."""
        row = await self._session.fetch_one(
            _SQL["confirm"],
            device_hash=login.device_hash,
            account_id=account_id,
            issuer_secret=issuer_secret,
        )
        return row is not None

    async def refuse(self, user_code: str) -> None:
        """Have a login that nobody has confirmed fail."""
        await self._session.execute(_SQL["refuse"], user_code=storable(user_code))

    async def issue(self, login: DeviceLogin) -> str | None:
        """Return the account that gets tokens for a login; None if it got them a while ago."""
        row = await self._session.fetch_one(
            _SQL["issue"], device_hash=login.device_hash, again_within=_AGAIN_WITHIN
        )
        return None if row is None else row["account_id"]

    async def postpone_poll(self, login: DeviceLogin, seconds: float) -> None:
        """Have the issuer asked about a login again in so many seconds."""
        await self._session.execute(
            _SQL["postpone_poll"], device_hash=login.device_hash, seconds=seconds
        )

    async def claim_poll(self, login: DeviceLogin, seconds: float) -> bool:
        """Take it on to ask the issuer about a login; False if somebody has within `seconds`."""
        row = await self._session.fetch_one(
            _SQL["claim_poll"], device_hash=login.device_hash, seconds=seconds
        )
        return row is not None

    async def attempt(self, account_name: str, address: str) -> float | None:
        """Count an attempt as a failure, until `succeeded`; return for how long it is locked, if so."""
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
        """Remove logins that have ended, and failures of long ago."""
        await self._session.execute(_SQL["drop_expired"])
        await self._session.execute(_SQL["drop_old_failures"], seconds=_FORGET_AFTER)


def _of_account(name: str) -> str:
    return f"account {storable(name).lower()}"


def _of_address(address: str) -> str:
    return f"address {address}"


_FIELDS = tuple(DeviceLogin.__dataclass_fields__)


def _login(row: Row | None) -> DeviceLogin | None:
    return None if row is None else DeviceLogin(**{name: row[name] for name in _FIELDS})
