"""The only access to PostgreSQL, with six operations. No other module imports the driver.

During a fault of the database (a lost connection, a failover, a deadlock), an operation is tried
again for `patience` seconds and then raises `Unavailable`. A value that the database cannot hold is
refused as MALFORMED_REQUEST. Any other error is a `StoreError`. So the work of a `transaction` may
run more than once, each time from the start.

Ids are unsigned 64-bit numbers on the wire and bigint, which is signed, in the database. Only the
adapters below convert: every bigint that is written or read is unsigned.
"""

import asyncio
import random
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import AsyncConnection, adapters, postgres
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.pq import Format
from psycopg.rows import DictRow, dict_row
from psycopg.types.array import ListBinaryDumper
from psycopg.types.json import Jsonb

from flower_nats.logs import get_logger
from flower_nats.model.errors import ApiError, ErrorCode, FlowerNatsError, Unavailable
from flower_nats.outage import Outage
from flower_nats.store.pool import CONNECT, Pool
from flower_nats.store.queries import load

log = get_logger(__name__)

PATIENCE = 5.0
"""Seconds that a call waits for a fault of the database to pass before it fails."""

OLDEST_SERVER = 15
"""The oldest major version of PostgreSQL that was tried."""

ATTEMPT_SECONDS = 12.0
"""Seconds for one attempt: a little more than the database's own limit for a statement."""

# Keepalives find a primary that vanished silently within about ten seconds.
_CONNECTION_PARAMETERS = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

_TRANSIENT = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    # The answer of a primary that has just become a standby.
    psycopg.errors.ReadOnlySqlTransaction,
    TimeoutError,
    OSError,
)

_STALE = psycopg.errors.FeatureNotSupported
"""The answer of a connection with an old plan for a query if its tables have a new column: a newer
replica has migrated the database."""

_NO_OUTAGE = (psycopg.errors.TransactionRollback, _STALE)
"""Faults of a reachable database, such as deadlocks."""

_UNSTORABLE = (
    # A NUL in a text, or a time out of range.
    psycopg.DataError,
    # A text that is too long for an index; psycopg counts it as a transient fault.
    psycopg.errors.ProgramLimitExceeded,
)
_UNSTORABLE_TEXT = (
    "A value in the request cannot be stored: it has a NUL character, or a text or number "
    "out of range."
)

_BIGINT = struct.Struct("!q")
_UNSIGNED = 2**64

Row = Mapping[str, Any]
Parameters = Mapping[str, object]
T = TypeVar("T")


class DatabaseTooOld(FlowerNatsError):
    """The database's server lacks what we need."""


class StoreError(FlowerNatsError):
    """The database refused a statement for a reason that trying again would not mend."""


class NotAllowed(StoreError):
    """The role may not do this."""


class DatabaseFull(Unavailable):
    """The database has no room on its disk."""


class Session(Protocol):
    """The operations for repositories, inside a transaction or on their own."""

    async def fetch_one(self, query: str, **parameters: object) -> Row | None:
        """Run a query and return its first row, None if it has none."""

    async def fetch_all(self, query: str, **parameters: object) -> list[Row]:
        """Run a query and return all its rows."""

    async def execute(self, query: str, **parameters: object) -> int:
        """Run a statement and return the number of affected rows."""


class Transaction:
    """A session with statements that take effect together or not at all."""

    def __init__(self, connection: AsyncConnection[DictRow]) -> None:
        self._connection = connection

    async def fetch_one(self, query: str, **parameters: object) -> Row | None:
        """See `Session`."""
        cursor = await self._run(query, parameters)
        return await cursor.fetchone()

    async def fetch_all(self, query: str, **parameters: object) -> list[Row]:
        """See `Session`."""
        cursor = await self._run(query, parameters)
        return list(await cursor.fetchall())

    async def execute(self, query: str, **parameters: object) -> int:
        """See `Session`."""
        cursor = await self._run(query, parameters)
        return cursor.rowcount

    async def script(self, text: str) -> None:
        """Run several statements without parameters, such as a migration."""
        await self._connection.execute(text)

    async def _run(self, query: str, parameters: Parameters) -> psycopg.AsyncCursor[DictRow]:
        # Queries come from the .sql files of this package, and are never composed.
        return await self._connection.execute(query, parameters, binary=True)


class Database:
    """PostgreSQL as the runtime uses it."""

    def __init__(self, dsn: str, max_connections: int = 10, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._answered_at = float("-inf")
        self._outage = Outage(log, "database_away", "database_back")
        self._pool = Pool(
            dsn,
            max_connections,
            _configure,
            {
                **_CONNECTION_PARAMETERS,
                "application_name": "flower-nats",
                "autocommit": True,
                "row_factory": dict_row,
                "context": _adapters(),
            },
        )

    async def open(self, patience: float = 30.0) -> None:
        """Connect.

        Raises `Unavailable` if the database does not answer within `patience` seconds, and
        `DatabaseTooOld`.
        """
        await self._pool.open()
        deadline = time.monotonic() + patience
        while True:
            try:
                async with self._pool.connection(CONNECT) as connection:
                    _check_version(connection.info.server_version)
                return
            except DatabaseTooOld:
                await self.close()
                raise
            except psycopg.OperationalError as exc:
                if time.monotonic() > deadline:
                    await self.close()
                    raise Unavailable(f"the database does not answer: {exc}") from exc

    async def close(self) -> None:
        """Close all connections to the database."""
        await self._pool.close()

    def has_answered(self, lately: float) -> bool:
        """Return whether an operation has succeeded within the last `lately` seconds."""
        return time.monotonic() - self._answered_at < lately

    async def encrypted_server(self) -> tuple[str, int] | None:
        """Return host and port of the server if our connections to it speak TLS.

        Raises `Unavailable` if it does not answer.
        """
        try:
            async with self._pool.connection(CONNECT) as connection:
                info = connection.info
                return (info.host, info.port) if connection.pgconn.ssl_in_use else None
        except (psycopg.OperationalError, TimeoutError) as exc:
            raise Unavailable(f"the database does not answer: {exc}") from exc

    @property
    def away_since(self) -> float | None:
        """Since when the database does not answer, by the monotonic clock; None while it does."""
        return self._outage.since

    async def until_lost(self) -> None:
        """See `Pool.until_lost`."""
        await self._pool.until_lost()

    async def fetch_one(self, query: str, **parameters: object) -> Row | None:
        """See `Session`."""
        return await self._patiently(lambda session: session.fetch_one(query, **parameters))

    async def fetch_all(self, query: str, **parameters: object) -> list[Row]:
        """See `Session`."""
        return await self._patiently(lambda session: session.fetch_all(query, **parameters))

    async def execute(self, query: str, **parameters: object) -> int:
        """See `Session`."""
        return await self._patiently(lambda session: session.execute(query, **parameters))

    async def transaction(
        self, work: Callable[[Transaction], Awaitable[T]], timeout: float | None = ATTEMPT_SECONDS
    ) -> T:
        """Run `work` in a transaction, again from the start after a transient fault.

        `timeout` bounds one attempt, in seconds; None for a migration, which may take long. If it
        is longer than `ATTEMPT_SECONDS`, each statement may take that long, too.
        """
        seconds = timeout if timeout is not None and timeout > ATTEMPT_SECONDS else 0.0

        async def attempt(session: Transaction) -> T:
            async with session._connection.transaction():
                if seconds:
                    await session.execute(load("database")["lengthen_statements"], seconds=seconds)
                return await work(session)

        return await self._patiently(attempt, timeout)

    async def _patiently(
        self, work: Callable[[Transaction], Awaitable[T]], timeout: float | None = ATTEMPT_SECONDS
    ) -> T:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                async with self._pool.connection(left) as connection:
                    async with asyncio.timeout(timeout):
                        answer = await _work(work, connection)
                self._answered_at = time.monotonic()
                self._outage.worked()
                return answer
            except _UNSTORABLE as exc:
                raise ApiError(
                    ErrorCode.MALFORMED_REQUEST, f"the database refused: {exc}", _UNSTORABLE_TEXT
                ) from exc
            except (*_TRANSIENT, _STALE) as exc:
                if not isinstance(exc, _NO_OUTAGE):
                    self._outage.failed(str(exc))
                if time.monotonic() > deadline:
                    full = isinstance(exc, psycopg.errors.DiskFull)
                    kind = DatabaseFull if full else Unavailable
                    raise kind(f"the database cannot answer: {exc}") from exc
            except psycopg.errors.InsufficientPrivilege as exc:
                raise NotAllowed(f"the database refused: {exc}") from exc
            except psycopg.Error as exc:
                raise StoreError(f"the database refused: {exc}") from exc
            # Random pauses keep replicas in a deadlock from meeting again.
            await asyncio.sleep(random.uniform(0.02, 0.2))


async def _work(
    work: Callable[[Transaction], Awaitable[T]], connection: AsyncConnection[DictRow]
) -> T:
    try:
        return await work(Transaction(connection))
    except _STALE:
        # Closing drops the old plans too. The pool opens another connection.
        await connection.close()
        raise


def storable(text: str) -> str:
    """Return a text without NUL, which PostgreSQL cannot store.

    Use this for texts that must be stored in any case. Other texts are better refused.
    """
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _check_version(number: int) -> None:
    """Check the server's version in libpq's form: 150018 is 15.18."""
    major = number // 10_000
    if major < OLDEST_SERVER:
        raise DatabaseTooOld(
            f"The PostgreSQL server has version {major}, but flower-nats needs {OLDEST_SERVER} "
            "or newer. Nothing was changed. Remedy: use a newer server; pg_upgrade moves the "
            "data to it."
        )


async def _configure(connection: AsyncConnection[DictRow]) -> None:
    await connection.execute(load("database")["prepare_session"])


class _BigintDumper(Dumper):
    """Sends every int as a bigint; the upper half of the unsigned range becomes negative."""

    format = Format.BINARY
    oid = postgres.types["int8"].oid

    def dump(self, obj: int) -> Buffer:
        if not -(_UNSIGNED // 2) <= obj < _UNSIGNED:
            raise psycopg.DataError(f"{obj} has more than 64 bits")
        return _BIGINT.pack(obj - _UNSIGNED if obj >= _UNSIGNED // 2 else obj)


class _BinaryBigintLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        return int(_BIGINT.unpack(data)[0]) % _UNSIGNED


class _TextBigintLoader(Loader):
    format = Format.TEXT

    def load(self, data: Buffer) -> int:
        return int(bytes(data)) % _UNSIGNED


def _adapters() -> AdaptersMap:
    ours = AdaptersMap(adapters)
    ours.register_dumper(int, _BigintDumper)
    # By default a list is sent as text, which would bypass the dumper for ids.
    ours.register_dumper(list, ListBinaryDumper)
    ours.register_loader("int8", _BinaryBigintLoader)
    ours.register_loader("int8", _TextBigintLoader)
    return ours


__all__ = [
    "PATIENCE",
    "Database",
    "DatabaseFull",
    "Jsonb",
    "NotAllowed",
    "Row",
    "Session",
    "StoreError",
    "Transaction",
    "storable",
]
