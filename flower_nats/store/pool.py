"""The connections to PostgreSQL, lent to one caller after the other.

A connection is given back to the end, whatever becomes of who had it: given back by halves it would
be lost, and the pool would never open another one in its place. Callers wait here for their turn, not
in the driver's pool, which keeps those that gave up in its queue.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError, Unavailable

log = get_logger(__name__)

# What the driver's pool says of each attempt is said once a minute, by `Database`.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

CONNECT = 3.0
"""Seconds within which a connection must stand or be had from the pool."""

MOST_WAITING = 1_000
"""Callers that may wait for their turn. At 50 ms for each, the last one of them is served by ten
connections in five seconds, which is as long as callers have patience."""

_LOOK_EVERY = 5.0
"""Seconds between two looks at whether connections can be had."""

_LOST_AFTER = 20.0
"""Seconds for which new connections work while none can be had from the pool, until it counts as
lost. Longer than one attempt of a caller takes, and than its statement takes to be cancelled."""


class PoolLost(FlowerNatsError):
    """No connection can be had from the pool, while the database gives new ones."""


class Pool:
    """A bounded number of connections, and a bounded number of callers who wait for one."""

    def __init__(
        self,
        dsn: str,
        size: int,
        configure: Callable[[AsyncConnection[DictRow]], Awaitable[None]],
        parameters: Mapping[str, Any],
    ) -> None:
        self._dsn = dsn
        self._parameters = dict(parameters)
        self._turns = asyncio.Semaphore(size)
        self._waiting = 0
        self._returning: set[asyncio.Task[None]] = set()
        self._lent_at = time.monotonic()
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=size,
            open=False,
            timeout=CONNECT,
            # Short, so that the pool's own back-off never outlasts a failover: we retry anyway.
            reconnect_timeout=1.0,
            configure=configure,
            kwargs=self._parameters,
        )

    async def open(self) -> None:
        """Begin to connect."""
        await self._pool.open()

    async def close(self) -> None:
        """Give all connections back to the database."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self, patience: float) -> AsyncIterator[AsyncConnection[DictRow]]:
        """Lend a connection.

        Raises `Unavailable` at once if too many wait, `TimeoutError` if it is not our turn within
        `patience` seconds, and the driver's `OperationalError` if the database does not answer.
        """
        await self._take_turn(patience)
        try:
            connection = await self._pool.getconn()
        except BaseException:
            self._turns.release()
            raise
        self._lent_at = time.monotonic()
        try:
            yield connection
        finally:
            returning = asyncio.create_task(self._take_back(connection), name="connection back")
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            await asyncio.shield(returning)

    async def until_lost(self) -> None:
        """Return never: raises `PoolLost` once connections cannot be had although they could be made.

        Somebody must ask for a connection every few seconds, as the announcements of a replica do.
        """
        since: float | None = None
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if time.monotonic() - self._lent_at < 2 * _LOOK_EVERY or not await self._can_connect():
                since = None
            elif since is None:
                since = time.monotonic()
                log.warning("database_pool_stuck", waiting=self._waiting)
            elif time.monotonic() - since > _LOST_AFTER:
                raise PoolLost

    async def _take_turn(self, patience: float) -> None:
        if self._waiting >= MOST_WAITING:
            raise Unavailable(f"{self._waiting} callers wait for the database already")
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._turns.acquire()
        finally:
            self._waiting -= 1

    async def _take_back(self, connection: AsyncConnection[DictRow]) -> None:
        try:
            await self._pool.putconn(connection)
        finally:
            self._turns.release()

    async def _can_connect(self) -> bool:
        """Return whether the database gives us a connection beside those of the pool."""
        try:
            async with asyncio.timeout(2 * CONNECT):
                fresh = await AsyncConnection.connect(self._dsn, **self._parameters)
                async with fresh:
                    await fresh.execute("SELECT 1")
        except (psycopg.Error, OSError, TimeoutError):
            return False
        return True
