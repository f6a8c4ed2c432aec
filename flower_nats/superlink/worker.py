"""The life of one superlink: open connections, serve, do housekeeping, and leave in good order."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from flower_nats.broker.connection import Connection
from flower_nats.broker.durability import ALWAYS, UNKNOWN
from flower_nats.broker.pushers import Pushers
from flower_nats.broker.rpc import RpcServer
from flower_nats.health import HealthServer, Readiness
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label
from flower_nats.model.about import about_process
from flower_nats.model.errors import Unavailable
from flower_nats.outage import Outage
from flower_nats.settings import SuperlinkSettings
from flower_nats.stopping import keep_running, stop_at_signals, until
from flower_nats.store.connection import Database
from flower_nats.store.leases import Leases
from flower_nats.store.migrate import migrate
from flower_nats.store.replicas import Replicas
from flower_nats.superlink.accounts.audit import keep_audit_events
from flower_nats.superlink.housekeeping.housekeeper import Housekeeping
from flower_nats.superlink.operators.status_report import durability
from flower_nats.superlink.wiring import Watches, handlers, pieces, watches

log = get_logger(__name__)

_DRAIN_SECONDS = 6.0
"""Seconds that open requests may take when the worker ends."""

_LEAVE_SECONDS = 2.0
"""Seconds that the worker tries to tell others of its end."""

_ANNOUNCE_EVERY = 5.0
"""Seconds between two signs of life."""

_LATELY = 15.0
"""Seconds within which the database must have answered for the worker to be ready."""


async def serve(settings: SuperlinkSettings, stop: asyncio.Event | None = None) -> None:
    """Run one superlink until `stop` (without one: SIGTERM or SIGINT), then drain, for at most 10 s.

    Raises `Unavailable` if the broker or the database does not answer at the start, and any error
    that ended one of the worker's own tasks.
    """
    stop = stop or stop_at_signals()
    async with AsyncExitStack() as stack:
        worker = await until(stop, _open(stack, settings))
        if worker is not None:
            await worker.run(stop)


async def _open(stack: AsyncExitStack, settings: SuperlinkSettings) -> "_Worker":
    """Open the connections of a worker; `stack` closes them."""
    worker_id = uuid.uuid4().hex
    database = await stack.enter_async_context(_database(settings))
    connection = await stack.enter_async_context(_connection(settings, worker_id))
    watched = watches(settings, database, connection)
    await watched.streams.prepare()
    await watched.trials.look()
    _tell_durability(await durability(database, connection))
    return _Worker(settings, worker_id, database, connection, watched)


class _Worker:
    """A superlink with all its parts."""

    def __init__(
        self,
        settings: SuperlinkSettings,
        worker_id: str,
        database: Database,
        connection: Connection,
        watched: Watches,
    ) -> None:
        self._settings = settings
        self._id = worker_id
        self._database = database
        self._connection = connection
        self._watched = watched
        self._server = RpcServer(connection, handlers(settings, database, connection, watched))
        self._readiness = Readiness(
            {
                "broker": lambda: connection.is_connected,
                "streams": watched.trials,
                "database": lambda: database.has_answered(_LATELY),
            }
        )
        self._health_servers = AsyncExitStack()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and do housekeeping until `stop`, then drain. Raises the error of its tasks."""
        if self._settings.http_health_address:
            http = HealthServer(self._readiness, self._metrics)
            await http.start(self._settings.http_health_address)
            self._health_servers.push_async_callback(http.stop)
        if self._settings.health_server_address:
            await self._start_grpc_health(self._settings.health_server_address)
        pushers = Pushers()
        await pushers.listen(self._connection)
        await self._server.start()
        log.info("superlink_ready", replica=self._id)
        housekeeping = Housekeeping(
            Leases(self._database),
            self._id,
            pieces(self._settings, self._database, self._connection, self._watched, pushers),
        )
        try:
            await keep_running(
                stop,
                {
                    "housekeeping": housekeeping.run(),
                    "announce": self._announce(),
                    "trials": self._watched.trials.run(),
                    "streams": self._watched.streams.run(),
                    "room": self._watched.room.run(),
                    "figures": self._watched.figures.run(),
                    "runtime": self._watched.runtime.run(),
                    "connection": self._connection.until_ended(),
                    # A new superlink, with its own pool, is started in our place.
                    "database": self._database.until_lost(),
                },
            )
        finally:
            await self._drain()

    async def _start_grpc_health(self, address: str) -> None:
        # Imported only here: gRPC takes 8 MB of memory, and a superlink needs it for nothing else.
        from flower_nats.grpc_health import GrpcHealthServer

        server = GrpcHealthServer(self._readiness)
        await server.start(address)
        self._health_servers.push_async_callback(server.stop)

    async def _metrics(self) -> list[Metric]:
        retries = by_label(
            "retries_total",
            "Requests that were made again after a passing fault, by whom they were made to.",
            "to",
            {"broker": self._connection.retries},
        )
        return [
            retries,
            *self._server.metrics(),
            *self._watched.notes.metrics(),
            *self._watched.figures.metrics(),
            *await self._watched.overview.metrics(),
        ]

    async def _announce(self) -> None:
        """Show this replica to `flower-nats status` for as long as it runs."""
        replicas, since = Replicas(self._database), time.time()
        about = about_process()
        unheard = Outage(log, "announcement_postponed", "announced_again")
        while True:
            try:
                await replicas.announce("superlink", self._id, since, about=about)
                unheard.worked()
            except Unavailable as exc:
                unheard.failed(exc.detail)
            await asyncio.sleep(_ANNOUNCE_EVERY)

    async def _drain(self) -> None:
        """Become unready, finish open requests, leave."""
        self._readiness.leave()
        await asyncio.sleep(self._settings.drain_delay)
        await self._server.drain(max(1.0, _DRAIN_SECONDS - self._settings.drain_delay))
        await self._leave()
        await self._health_servers.aclose()
        log.info("superlink_drained", replica=self._id)

    async def _leave(self) -> None:
        """Release the housekeeping at once; otherwise others wait until the leases expire."""
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await Leases(self._database).release(self._id)
                await Replicas(self._database).leave("superlink", self._id)
        except (Unavailable, TimeoutError) as exc:
            log.warning("superlink_left_unsaid", reason=str(exc))


def _tell_durability(promise: Mapping[str, Any]) -> None:
    """Log the durability that the present servers provide."""
    broker, stored = promise["broker"], promise["database"]
    log.info("durability", broker=broker, database=stored)
    if broker["sync"] == UNKNOWN:
        log.warning(
            "broker_sync_unknown",
            servers=[name for name, sync in broker["servers"].items() if sync == UNKNOWN],
            meaning="These servers are down, or do not say whether they sync before they acknowledge.",
            remedy="Export $SYS.REQ.SERVER.PING.VARZ to this account, with response_type Stream.",
        )
    elif broker["sync"] != ALWAYS:
        log.warning(
            "broker_not_synced",
            replicas=broker["replicas"],
            servers=broker["servers"],
            meaning="A power cut of the broker can lose messages that were acknowledged.",
            remedy="Set sync_interval: always in the jetstream block of every nats-server.",
        )
    if not stored["synced"]:
        log.warning(
            "database_not_synced",
            fsync=stored["fsync"],
            synchronous_commit=stored["synchronous_commit"],
            meaning="A power cut of the database can lose runs and results that were acknowledged.",
            remedy="Set fsync and synchronous_commit to on in postgresql.conf.",
        )


@asynccontextmanager
async def _database(settings: SuperlinkSettings) -> AsyncIterator[Database]:
    database = Database(settings.database, settings.database_connections)
    await database.open()
    try:
        await migrate(database)
        await keep_audit_events(database, settings.audit_retention)
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _connection(settings: SuperlinkSettings, replica_id: str) -> AsyncIterator[Connection]:
    connection = await Connection.connect(
        settings.nats, f"superlink {replica_id}", ca_certificate=settings.nats_ca_certificate
    )
    try:
        yield connection
    finally:
        await connection.close()
