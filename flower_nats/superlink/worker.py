"""The life of one superlink: open what it needs, serve, keep house, and leave in good order."""

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from flower_nats.broker.connection import Connection
from flower_nats.broker.hints import Hints
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.rpc import RpcServer
from flower_nats.broker.streams import ensure_streams
from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.connection import Database
from flower_nats.store.fabs import Fabs
from flower_nats.store.leases import Leases
from flower_nats.store.migrate import migrate
from flower_nats.store.nodes import Nodes
from flower_nats.store.replicas import Replicas
from flower_nats.store.runs import Runs
from flower_nats.superlink.api import BytesHandler, serve_internal, serve_protobuf
from flower_nats.superlink.control import ControlApi
from flower_nats.superlink.control_runs import ControlRunsApi
from flower_nats.superlink.fleet import FleetApi
from flower_nats.superlink.housekeeping import Housekeeping, MetadataHousekeeping, Piece
from flower_nats.superlink.internal import InternalApi
from flower_nats.superlink.lifecycle import Lifecycle
from flower_nats.superlink.messages import MessageHousekeeping
from flower_nats.superlink.serverappio import ServerAppIoApi
from flower_nats.superlink.serverappio_tasks import TaskWorkApi

log = get_logger(__name__)

_DRAIN_SECONDS = 6.0
"""How long requests in hand may take when the worker ends."""

_LEAVE_SECONDS = 2.0
"""How long the worker tries to tell others that it ends."""

_ANNOUNCE_EVERY = 5.0
"""Seconds between two signs of life."""

_SWEEP_EVERY = 2.0
"""Seconds between two looks at what is in flight."""


async def serve(settings: SuperlinkSettings, stop: asyncio.Event | None = None) -> None:
    """Run one superlink until SIGTERM, SIGINT or `stop`, then drain; that takes at most 10 s.

    Raises `Unavailable` if the broker or the database does not answer at the start, and whatever
    ended one of the worker's own tasks.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    replica_id = uuid.uuid4().hex
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(_database(settings))
        connection = await stack.enter_async_context(_connection(settings, replica_id))
        await ensure_streams(connection)
        server = RpcServer(connection, handlers(settings, database, connection))
        await server.start()
        log.info("superlink_ready", replica=replica_id)
        try:
            await _keep_house(database, connection, replica_id, stop)
        finally:
            await server.drain(_DRAIN_SECONDS)
            await _leave(database, replica_id)
            log.info("superlink_drained", replica=replica_id)


def handlers(
    settings: SuperlinkSettings, database: Database, connection: Connection
) -> Mapping[tuple[str, str], BytesHandler]:
    """Return the handler of every RPC that superlinks serve."""
    hints, mailbox = Hints(connection), Mailbox(connection)
    lifecycle = Lifecycle(hints, mailbox)
    fleet = FleetApi(
        Nodes(database),
        Runs(database),
        Fabs(database),
        hints,
        mailbox,
        enable_supernode_auth=settings.enable_supernode_auth,
    )
    public = {
        "Fleet": fleet.handlers(),
        "ServerAppIo": {
            **ServerAppIoApi(database, lifecycle).handlers(),
            **TaskWorkApi(database, lifecycle).handlers(),
        },
        "Control": {
            **ControlApi(database, hints).handlers(),
            **ControlRunsApi(database, lifecycle).handlers(),
        },
    }
    internal = InternalApi(database, connection).handlers()
    return {
        **{
            (service, name): serve_protobuf(service, name, handler)
            for service, table in public.items()
            for name, handler in table.items()
        },
        **{("Internal", name): serve_internal(name, handler) for name, handler in internal.items()},
    }


@asynccontextmanager
async def _database(settings: SuperlinkSettings) -> AsyncIterator[Database]:
    database = Database(settings.database)
    await database.open()
    try:
        await migrate(database)
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def _connection(settings: SuperlinkSettings, replica_id: str) -> AsyncIterator[Connection]:
    connection = await Connection.connect(settings.nats, f"superlink {replica_id}")
    try:
        yield connection
    finally:
        await connection.close()


async def _keep_house(
    database: Database, connection: Connection, replica_id: str, stop: asyncio.Event
) -> None:
    """Do what goes on beside the requests, until `stop` is set or a part of it fails."""
    housekeeping = Housekeeping(Leases(database), replica_id, _pieces(database, connection))
    stopped = asyncio.create_task(stop.wait(), name="stop")
    tasks = [
        stopped,
        asyncio.create_task(housekeeping.run(), name="housekeeping"),
        asyncio.create_task(_announce(Replicas(database), replica_id), name="announce"),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def _pieces(database: Database, connection: Connection) -> list[Piece]:
    """Return every piece of housekeeping there is."""
    mailbox = Mailbox(connection)
    lifecycle = Lifecycle(Hints(connection), mailbox)
    messages = MessageHousekeeping(
        mailbox, Objects(connection), Nodes(database).statuses, Runs(database).statuses
    )
    return [
        *MetadataHousekeeping(database, lifecycle, mailbox).pieces(),
        Piece("messages", _SWEEP_EVERY, messages.sweep),
    ]


async def _announce(replicas: Replicas, replica_id: str) -> None:
    """Show this replica to `flower-nats status` for as long as it runs."""
    since = time.time()
    while True:
        try:
            await replicas.announce("superlink", replica_id, since)
        except Unavailable as exc:
            log.warning("announcement_postponed", reason=exc.detail)
        await asyncio.sleep(_ANNOUNCE_EVERY)


async def _leave(database: Database, replica_id: str) -> None:
    """Leave the housekeeping to others at once; without this they wait for the leases to end."""
    try:
        async with asyncio.timeout(_LEAVE_SECONDS):
            await Leases(database).release(replica_id)
            await Replicas(database).leave("superlink", replica_id)
    except (Unavailable, TimeoutError) as exc:
        log.warning("superlink_left_unsaid", reason=str(exc))
