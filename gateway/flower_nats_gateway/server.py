"""The life of one gateway: build it, serve, drain, leave."""

import asyncio
import signal
import socket
import time
import uuid

import grpc.aio
from grpc_health.v1 import health, health_pb2

from flower_nats.broker.connection import Connection
from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.hints import Wakes
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.runlog import RunLogs
from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable
from flower_nats.settings import GatewaySettings
from flower_nats.wire.methods import CONTROL, FLEET, SERVERAPPIO
from flower_nats_gateway.arrivals import Arrivals
from flower_nats_gateway.authentication import (
    FleetAuthenticator,
    ServerAppIoAuthenticator,
    authenticate_nobody,
)
from flower_nats_gateway.call import Drain
from flower_nats_gateway.control import ControlStreams
from flower_nats_gateway.edge import Service, ServiceHandler
from flower_nats_gateway.fleet import FleetService
from flower_nats_gateway.forwarding import Forwarder
from flower_nats_gateway.identities import Identities
from flower_nats_gateway.listener import allow_many_connections, listen
from flower_nats_gateway.memory import return_freed_memory
from flower_nats_gateway.objects import ObjectService
from flower_nats_gateway.serverappio import ServerAppIoService
from flower_nats_gateway.usage import Usage
from flower_nats_gateway.verifier import Verifier

log = get_logger(__name__)

GRACE = 8.0
"""Seconds that calls in hand have to finish once the gateway drains."""

_ANNOUNCE_INTERVAL = 5.0
_LEAVE_SECONDS = 1.0
_SETTLE_SECONDS = 1.0


class Gateway:
    """All parts of one gateway, wired."""

    def __init__(self, settings: GatewaySettings, connection: Connection) -> None:
        self.id = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.drain = Drain()
        self.wakes = Wakes(connection)
        self.verifier = Verifier()
        self.rpc = RpcClient(connection)
        self.usage = Usage(self.rpc)
        self._settings = settings
        self._connection = connection
        self._servers: list[grpc.aio.Server] = []
        self._serverappio: ServerAppIoService | None = None
        self._health = health.aio.HealthServicer()
        self._since = time.time()

    def services(self) -> tuple[Service, Service, Service]:
        """Return the three APIs: Fleet, ServerAppIo, Control."""
        mailbox, objects = Mailbox(self._connection), Objects(self._connection)
        logs = RunLogs(self._connection)
        identities = Identities(self.rpc, self.wakes)
        arrivals = Arrivals(mailbox, objects, self.wakes)
        object_service = ObjectService(objects, arrivals, self.wakes, self.drain)
        forward = Forwarder(self.rpc)
        fleet = FleetService(
            mailbox, arrivals, object_service, identities, self.wakes, self.usage, self.drain
        )
        serverappio = self._serverappio = ServerAppIoService(
            mailbox,
            arrivals,
            object_service,
            ErrorReplies(mailbox, objects),
            logs,
            identities,
            self.wakes,
            self.rpc,
            self.drain,
        )
        streams = ControlStreams(logs, identities, self.wakes, self.rpc, self.drain)
        secret = self._settings.superexec_auth_secret
        return (
            Service(
                FLEET, FleetAuthenticator(identities, self.verifier), fleet.endpoints(), forward, {}
            ),
            Service(
                SERVERAPPIO,
                ServerAppIoAuthenticator(identities, self.rpc, secret),
                serverappio.endpoints(),
                forward,
                {},
            ),
            Service(CONTROL, authenticate_nobody(), {}, forward, streams.endpoints()),
        )

    async def start(self) -> None:
        """Listen on all addresses. Raises `CannotListen`."""
        settings = self._settings
        await self.wakes.start()
        fleet, serverappio, control = self.services()
        for address, service, tls in (
            (settings.serverappio_api_address, serverappio, settings.appio_tls),
            (settings.fleet_api_address, fleet, settings.tls),
            (settings.control_api_address, control, settings.tls),
        ):
            handlers = [ServiceHandler(service)]
            self._servers.append(await listen(address, handlers, self._health, tls))
        if settings.health_server_address:
            # Never TLS, as stock's.
            self._servers.append(await listen(settings.health_server_address, [], self._health))
        await self._report_health(serving=True)
        log.info(
            "gateway_ready",
            gateway=self.id,
            fleet=settings.fleet_api_address,
            control=settings.control_api_address,
            serverappio=settings.serverappio_api_address,
        )

    async def announce_forever(self) -> None:
        """Let superlinks know that this gateway is there, until cancelled."""
        while True:
            try:
                await self.rpc.ask("Announce", kind="gateway", id=self.id, since=self._since)
            except Unavailable as exc:
                log.warning("announce_delayed", reason=exc.detail)
            await asyncio.sleep(_ANNOUNCE_INTERVAL)

    async def stop(self) -> None:
        """Drain: unready first, end held calls, finish what is in hand, leave."""
        log.info("gateway_draining", gateway=self.id)
        await self._report_health(serving=False)
        self.drain.begin()
        self.wakes.disturb_all()
        await asyncio.gather(*(server.stop(GRACE) for server in self._servers))
        if self._serverappio is not None:
            await self._serverappio.settle(_SETTLE_SECONDS)
        await self.usage.send()
        await self._leave()
        await self.verifier.close()
        log.info("gateway_stopped", gateway=self.id)

    async def _leave(self) -> None:
        try:
            await self.rpc.ask("Leave", patience=_LEAVE_SECONDS, kind="gateway", id=self.id)
        except Unavailable as exc:
            log.warning("gateway_left_unsaid", reason=exc.detail)

    async def _report_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._health.set("", status.SERVING if serving else status.NOT_SERVING)


async def serve(settings: GatewaySettings, stop: asyncio.Event | None = None) -> None:
    """Run one gateway until SIGTERM, SIGINT or `stop`.

    Raises `Unavailable` if no NATS server answers, `CannotListen` if an address is taken.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    allow_many_connections()
    return_freed_memory()
    connection = await Connection.connect(settings.nats, "gateway")
    gateway = Gateway(settings, connection)
    try:
        await gateway.start()
        await _run(gateway, stop)
        await gateway.stop()
    finally:
        await connection.close()


async def _run(gateway: Gateway, stop: asyncio.Event) -> None:
    """Wait for the stop; a side task that fails stops the gateway, for it would serve half."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    sides = {
        asyncio.create_task(gateway.usage.send_forever(), name="usage"),
        asyncio.create_task(gateway.announce_forever(), name="announce"),
    }
    done, _ = await asyncio.wait({stopping, *sides}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *sides):
        task.cancel()
    await asyncio.gather(stopping, *sides, return_exceptions=True)
    for task in done - {stopping}:
        log.error("side_task_failed", task=task.get_name(), exc_info=task.exception())
