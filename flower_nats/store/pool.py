"""The pool of connections to PostgreSQL.

The return of a connection always completes, even if its caller is cancelled. With a partial return,
the connection would be lost, and the pool would never replace it. Callers wait here for their turn,
not in the driver's pool, which keeps callers that gave up in its queue.
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

# `Database` logs once a minute what the driver's pool would log for each attempt.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

CONNECT = 3.0
"""Seconds to open a connection, or to get one from the pool."""

MOST_WAITING = 1_000
"""Callers that may wait for their turn. With ten connections and 50 ms per caller, the last one is
served after five seconds, which is the patience of callers."""

_LOOK_EVERY = 5.0
"""Seconds between two checks whether the pool still lends connections."""

_LOST_AFTER = 20.0
"""Seconds after which the pool counts as lost if it lends nothing while new connections work.
Longer than one attempt of a caller with the cancellation of its statement."""


class PoolLost(FlowerNatsError):
    """No connection can be had from the pool, while the database gives new ones."""


class Pool:
    """A bounded number of connections, with a bounded number of waiting callers."""

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
            # This is short, so that the pool's own back-off never outlasts a failover: we retry
            # anyway.
            reconnect_timeout=1.0,
            configure=configure,
            kwargs=self._parameters,
        )

    async def open(self) -> None:
        """Begin to connect."""
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections to the database."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self, patience: float) -> AsyncIterator[AsyncConnection[DictRow]]:
        """Lend a connection.

        Raises `Unavailable` at once if too many callers wait, `TimeoutError` if the turn does not
        come within `patience` seconds, and the driver's `OperationalError` if the database does not
        answer.
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
        """Never return; raise `PoolLost` once the pool lends none although new connections work.

        A caller must ask for a connection every few seconds, as the announcements of a replica do.
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
        """Return whether the database accepts a new connection besides those of the pool."""
        try:
            async with asyncio.timeout(2 * CONNECT):
                fresh = await AsyncConnection.connect(self._dsn, **self._parameters)
                async with fresh:
                    await fresh.execute("SELECT 1")
        except (psycopg.Error, OSError, TimeoutError):
            return False
        return True
