"""The life of one gateway: build it, serve, drain, leave."""

import asyncio
import signal
import socket
import time
import uuid
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from grpc_health.v1 import health

from flower_nats.broker.connection import Connection
from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.hints import Wakes
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.runlog import RunLogs
from flower_nats.broker.streams import STREAMS_LATELY, watch_streams
from flower_nats.grpc_health import tell
from flower_nats.health import HealthServer, Heard, Readiness
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label, gauge
from flower_nats.model.errors import Unavailable
from flower_nats.settings import GatewaySettings
from flower_nats.stopping import keep_running, until
from flower_nats.wire.methods import CONTROL, FLEET, RUNTIME
from flower_nats_gateway.api.control import ControlStreams
from flower_nats_gateway.api.fleet import FleetService
from flower_nats_gateway.api.forwarding import Forwarder
from flower_nats_gateway.api.runtime import RuntimeService
from flower_nats_gateway.auth.authentication import (
    FleetAuthenticator,
    RuntimeAuthenticator,
    authenticate_nobody,
)
from flower_nats_gateway.auth.signatures import Verifier
from flower_nats_gateway.calls.call import Drain
from flower_nats_gateway.cluster.directory import Directory
from flower_nats_gateway.cluster.liveness import GatewayLiveness
from flower_nats_gateway.cluster.usage import Usage
from flower_nats_gateway.delivery.objects import ObjectService
from flower_nats_gateway.delivery.push_sessions import PushSessions
from flower_nats_gateway.process.allocator import (
    collect_seldom,
    return_freed_memory_forever,
    set_up_allocator,
)
from flower_nats_gateway.runlog.intake import LogIntake
from flower_nats_gateway.runlog.pending import PendingLines
from flower_nats_gateway.transports.grpc.edge import Service, ServiceHandler
from flower_nats_gateway.transports.grpc.hang_up import CallsInHand, hang_up
from flower_nats_gateway.transports.grpc.listener import (
    LONGEST_MESSAGE,
    Listener,
    allow_many_connections,
    listen,
)

log = get_logger(__name__)

GRACE = 6.0
"""Seconds that calls in hand have to finish once the gateway drains."""

LONGEST_FLEET_BODY = 256 * 1024 * 1024
"""Bytes of a request to the Fleet API: stock cuts arrays into objects of 20 MB, other records not."""

LONGEST_CONTROL_BODY = 64 * 1024 * 1024
"""Bytes of a request to the Control API, of which anybody may make one: the largest holds a FAB, of
10 MiB at most."""

LONGEST_RUNTIME_BODY = LONGEST_MESSAGE
"""Bytes of a request to the ServerAppIo API: stock pushes a whole round's object trees at once."""

_LONGEST_HEALTH_BODY = 64 * 1024

_ANNOUNCE_INTERVAL = 5.0

_LATELY = 15.0
"""Seconds within which a superlink must have answered for this gateway to be ready."""

_HEALTH_INTERVAL = 0.2
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
        self.rpc.listen(self.wakes)
        self.usage = Usage(self.rpc, self.id)
        self._peers = GatewayLiveness(connection, self.wakes, self.id)
        self._settings = settings
        self._connection = connection
        self._listeners: list[Listener] = []
        self._in_hand = CallsInHand()
        self._serverappio: RuntimeService | None = None
        self._health = health.aio.HealthServicer()
        self._heard = Heard(_LATELY)
        self._led = Heard(STREAMS_LATELY)
        self._readiness = Readiness(
            {
                "broker": lambda: connection.is_connected,
                "streams": self._led,
                "superlink": self._heard,
                "listening": lambda: len(self._listeners) >= 3,
            }
        )
        self._http_health = HealthServer(self._readiness, self._metrics)
        self._since = time.time()

    async def _metrics(self) -> list[Metric]:
        broker, superlinks = self._connection.retries, self.rpc.retries
        return [
            gauge(
                "held_calls", "Calls that wait until there is something to say.", self.wakes.waiting
            ),
            gauge(
                "calls_in_hand",
                "Calls that are being served, those that wait among them.",
                self._in_hand.count,
            ),
            by_label(
                "retries_total",
                "Requests that were made again after a passing fault, by whom they were made to.",
                "to",
                {"broker": broker, "superlink": superlinks},
            ),
        ]

    def services(self) -> tuple[Service, Service, Service]:
        """Return the three APIs: Fleet, ServerAppIo, Control."""
        mailbox, objects = Mailbox(self._connection), Objects(self._connection)
        logs = RunLogs(self._connection)
        auth = self._settings.enable_supernode_auth
        identities = Directory(self.rpc, self.wakes, supernode_auth=auth)
        arrivals = PushSessions(mailbox, objects, self.wakes)
        object_service = ObjectService(objects, arrivals, self.wakes, self.drain)
        unstored = PendingLines(self._connection, self.wakes, self._peers, self.drain)
        forward = Forwarder(self.rpc, unstored, self.id)
        fleet = FleetService(
            mailbox, arrivals, object_service, identities, self.wakes, self.usage, self.drain
        )
        serverappio = self._serverappio = RuntimeService(
            mailbox,
            arrivals,
            object_service,
            ErrorReplies(mailbox, objects),
            LogIntake(logs, unstored, self.wakes, self.id),
            identities,
            self.wakes,
            self.rpc,
            forward,
            self.drain,
        )
        streams = ControlStreams(logs, unstored, identities, self.wakes, self.rpc, self.drain)
        secret = self._settings.superexec_auth_secret
        return (
            Service(
                FLEET,
                FleetAuthenticator(identities, self.verifier, supernode_auth=auth),
                fleet.endpoints(),
                forward,
                {},
                self._in_hand,
                LONGEST_FLEET_BODY,
            ),
            Service(
                RUNTIME,
                RuntimeAuthenticator(identities, unstored, self.rpc, secret),
                serverappio.endpoints(),
                forward,
                {},
                self._in_hand,
                LONGEST_RUNTIME_BODY,
            ),
            Service(
                CONTROL,
                authenticate_nobody(),
                {},
                forward,
                streams.endpoints(),
                self._in_hand,
                LONGEST_CONTROL_BODY,
            ),
        )

    async def start(self) -> None:
        """Listen on all addresses. Raises `CannotListen`."""
        settings = self._settings
        await self._tell_health()
        if settings.http_health_address:
            await self._http_health.start(settings.http_health_address)
        await self.wakes.start()
        await self._peers.start()
        await self.verifier.start()
        fleet, serverappio, control = self.services()
        for address, service, tls in (
            (settings.serverappio_api_address, serverappio, settings.appio_tls),
            (settings.fleet_api_address, fleet, settings.tls),
            (settings.control_api_address, control, settings.tls),
        ):
            listener = await listen(
                address,
                [ServiceHandler(service)],
                self._health,
                tls,
                longest_body=service.longest_body,
            )
            self._listeners.append(listener)
        if settings.health_server_address:
            # Never TLS, as stock's.
            address = settings.health_server_address
            listener = await listen(address, [], self._health, longest_body=_LONGEST_HEALTH_BODY)
            self._listeners.append(listener)
        log.info(
            "gateway_ready",
            gateway=self.id,
            fleet=settings.fleet_api_address,
            control=settings.control_api_address,
            serverappio=settings.serverappio_api_address,
        )

    def side_tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return what goes on beside the calls."""
        return {
            "usage": self.usage.send_forever(),
            "announce": self._announce_forever(),
            "streams": watch_streams(self._connection, self._led.note),
            "health": self._tell_health_forever(),
            "connection": self._connection.until_ended(),
            "memory": return_freed_memory_forever(),
        }

    async def _announce_forever(self) -> None:
        """Let superlinks know that this gateway is there, until cancelled."""
        while True:
            try:
                await self.rpc.ask("Announce", kind="gateway", id=self.id, since=self._since)
                self._heard.note()
            except Unavailable as exc:
                log.warning("announce_delayed", reason=exc.detail)
            await asyncio.sleep(_ANNOUNCE_INTERVAL)

    async def stop(self) -> None:
        """Drain: unready first, end held calls, finish what is in hand, leave."""
        log.info("gateway_draining", gateway=self.id)
        self._readiness.leave()
        await self._tell_health()
        await asyncio.sleep(self._settings.drain_delay)
        self.drain.begin()
        self.wakes.disturb_all()
        grace = max(1.0, GRACE - self._settings.drain_delay)
        await hang_up({one.port for one in self._listeners}, self._in_hand, grace)
        await asyncio.gather(*(one.server.stop(None) for one in self._listeners))
        if self._serverappio is not None:
            await self._serverappio.settle(_SETTLE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self.usage.send()
        await self._leave()
        await self.verifier.close()
        await self._http_health.stop()
        log.info("gateway_stopped", gateway=self.id)

    async def _leave(self) -> None:
        await self._peers.leave()
        try:
            await self.rpc.ask("Leave", patience=_LEAVE_SECONDS, kind="gateway", id=self.id)
        except Unavailable as exc:
            log.warning("gateway_left_unsaid", reason=exc.detail)

    async def _tell_health_forever(self) -> None:
        while True:
            await self._tell_health()
            await asyncio.sleep(_HEALTH_INTERVAL)

    async def _tell_health(self) -> None:
        await tell(self._health, self._readiness)


async def serve(settings: GatewaySettings, stop: asyncio.Event | None = None) -> None:
    """Run one gateway until SIGTERM, SIGINT or `stop`.

    Raises `Unavailable` if no NATS server answers, `CannotListen` if an address is taken, and
    whatever ended one of the gateway's own tasks.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    allow_many_connections()
    set_up_allocator()
    collect_seldom()
    connection = await until(stop, Connection.connect(settings.nats, "gateway"))
    if connection is None:
        return
    gateway = Gateway(settings, connection)
    try:
        await gateway.start()
        try:
            await keep_running(stop, gateway.side_tasks())
        finally:
            await gateway.stop()
    finally:
        await connection.close()
