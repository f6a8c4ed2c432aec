"""The life of one gateway: build it, serve, drain, leave."""

import asyncio
import socket
import time
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from grpc_health.v1 import health

from flower_nats.broker.connection import Connection
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.grpc_health import tell
from flower_nats.health import HealthServer, Heard, Readiness
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label, gauge
from flower_nats.model import certificates
from flower_nats.model.about import UPGRADE, OtherVersion, about_process, own_version
from flower_nats.model.errors import Unavailable
from flower_nats.model.exposure import exposure, open_control
from flower_nats.outage import Outage
from flower_nats.settings import GatewaySettings, TlsFiles
from flower_nats.stopping import keep_running, stop_at_signals, until
from flower_nats_gateway.api.service import Service
from flower_nats_gateway.calls.peers import Origins
from flower_nats_gateway.process import wiring
from flower_nats_gateway.process.allocator import (
    collect_seldom,
    return_freed_memory_forever,
    set_up_allocator,
)
from flower_nats_gateway.transports.address_limit import AddressLimit
from flower_nats_gateway.transports.grpc.hang_up import hang_up
from flower_nats_gateway.transports.grpc.listener import (
    Listener,
    allow_many_connections,
    listen,
)
from flower_nats_gateway.transports.grpc.wrong_doors import WrongDoors
from flower_nats_gateway.transports.http.app import HttpApp
from flower_nats_gateway.transports.http.listener import HttpListener, Served

log = get_logger(__name__)

GRACE = 6.0
"""Seconds that open calls have to finish once the gateway drains."""

_ANNOUNCE_INTERVAL = 5.0

_LATELY = 15.0
"""Seconds within which a superlink must have answered for this gateway to be ready."""

_HEALTH_INTERVAL = 0.2
_LEAVE_SECONDS = 1.0
_SETTLE_SECONDS = 1.0


class Gateway:
    """One gateway, from its start to its end."""

    def __init__(self, settings: GatewaySettings, connection: Connection) -> None:
        self.id = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._settings = settings
        self._connection = connection
        self._parts = wiring.wire(settings, connection, self.id)
        self._listeners: list[Listener] = []
        self._http: list[HttpListener] = []
        self._address_limit = AddressLimit(
            settings.max_connections_per_address, self._parts.balancers
        )
        self._public_ports: set[int] = set()
        self._wrong_doors = WrongDoors(
            settings.http_api_address, self._parts.in_hand, self._parts.balancers
        )
        self._listens = False
        self._health = health.aio.HealthServicer()
        self._heard = Heard(_LATELY)
        self._trials = StreamTrials(connection, sweeps=False)
        self._readiness = Readiness(
            {
                "broker": lambda: connection.is_connected,
                "streams": self._trials,
                "superlink": self._heard,
                "listening": lambda: self._listens,
            }
        )
        self._http_health = HealthServer(self._readiness, self._metrics)
        self._since = time.time()

    def _certificates(self) -> list[Mapping[str, Any]]:
        # Loaded anew each time, so that it reads a file that replaces the old one.
        settings = self._settings
        own = ((settings.tls, "gateways"), (settings.appio_tls, "gateways (ServerAppIo)"))
        shown = [(files.certificate, of) for files, of in own if files is not None]
        shown += [(path, "the balancer") for path in settings.balancer_certificates]
        return [one for path, of in shown for one in certificates.in_file(path, of)]

    async def _metrics(self) -> list[Metric]:
        parts = self._parts
        return [
            gauge(
                "held_calls",
                "Calls that the gateway holds until there is something to answer.",
                parts.wakes.waiting,
            ),
            gauge(
                "calls_in_hand",
                "Open calls, including held ones.",
                parts.in_hand.count,
            ),
            by_label(
                "retries_total",
                "Requests that were made again after a passing fault, by whom they were made to.",
                "to",
                {"broker": self._connection.retries, "superlink": parts.rpc.retries},
            ),
            gauge(
                "control_to_others",
                "Whether other machines reach Control here: they can run code on every host.",
                bool(exposure(self._settings)["control"]),
            ),
            *self._trials.metrics(),
            *parts.outcomes.metrics(),
            *parts.notes.metrics(),
            *parts.usage.metrics(),
            *parts.admission.metrics(),
            *parts.bodies.metrics(),
        ]

    async def start(self) -> None:
        """Listen on all addresses. Raises `CannotListen`."""
        settings, parts = self._settings, self._parts
        await self._tell_health()
        if settings.http_health_address:
            await self._http_health.start(settings.http_health_address)
        await parts.wakes.start()
        await parts.liveness.start()
        await parts.verifier.start()
        grpc_ports: dict[int, bool] = {}
        for address, service, tls in (
            (settings.serverappio_api_address, parts.runtime, settings.appio_tls),
            (settings.fleet_api_address, parts.fleet, settings.tls),
        ):
            if address:
                listener = await listen(address, [service], self._health, tls)
                self._listeners.append(listener)
                self._public_ports.add(listener.port)
                grpc_ports[listener.port] = tls is not None
        self._wrong_doors.start(grpc_ports)
        if settings.health_server_address:
            # This port never uses TLS, like stock's.
            listener = await listen(settings.health_server_address, [], self._health)
            self._listeners.append(listener)
        if settings.control_api_address:
            control = await self._over_both_wires([parts.control])
            self._serve_http(settings.control_api_address, control, settings.tls)
        if settings.http_api_address:
            await self._start_http(settings)
        self._listens = True
        exposed = exposure(settings)
        if exposed["control"] and not settings.require_accounts:
            log.warning(
                "control_to_others",
                meaning=open_control(exposed),
                remedy="--require-accounts, if every superlink has --accounts.",
            )
        log.info(
            "gateway_ready",
            gateway=self.id,
            http=settings.http_api_address,
            fleet=settings.fleet_api_address,
            control=settings.control_api_address,
            serverappio=settings.serverappio_api_address,
        )

    async def _start_http(self, settings: GatewaySettings) -> None:
        parts = self._parts
        here = await self._over_both_wires(parts.services_here(settings))
        others = await self._over_both_wires(parts.services_for_others(settings))
        self._serve_http(settings.http_api_address, here, settings.tls, others)
        if settings.http_loopback_address:
            self._serve_http(settings.http_loopback_address, here)

    async def _over_both_wires(self, services: Sequence[Service]) -> Served:
        # For gRPC on an HTTP port. Each such client connection has its own connection to this
        # listener, which distinguishes it from others.
        origins, longest = Origins(), self._parts.fleet.longest_body
        listener = await listen(
            "127.0.0.1:0", services, self._health, longest_body=longest, origins=origins
        )
        self._listeners.append(listener)
        app = HttpApp(
            services,
            is_ready=lambda: not self._readiness.lacks,
            is_leaving=lambda: self._parts.drain.begun,
        )
        return Served(app, listener.port, origins)

    def _serve_http(
        self, address: str, here: Served, tls: TlsFiles | None = None, others: Served | None = None
    ) -> None:
        http = HttpListener(here, tls, others, self._address_limit)
        self._public_ports.add(http.start(address))
        self._http.append(http)

    def side_tasks(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Return the background tasks beside the calls."""
        return {
            "usage": self._parts.usage.send_forever(),
            "announce": self._announce_forever(),
            "streams": self._trials.run(),
            "pushes": self._parts.pushes.tell_forever(self._connection, self.id),
            "health": self._tell_health_forever(),
            "balancers": self._parts.balancers.look_up_forever(),
            "connections": self._address_limit.watch(self._public_ports),
            "connection": self._connection.until_ended(),
            "memory": return_freed_memory_forever(),
        }

    async def _announce_forever(self) -> None:
        """Announce this gateway to superlinks, until cancelled."""
        unheard = Outage(log, "announce_delayed", "announced_again")
        while True:
            try:
                answer = await self._parts.rpc.ask(
                    "Announce",
                    kind="gateway",
                    id=self.id,
                    since=self._since,
                    about=about_process(
                        exposure=exposure(self._settings),
                        superexecs=self._parts.superexecs.report(),
                        clis=self._parts.clis.report(),
                        certificates=self._certificates(),
                    ),
                )
                _check_version(answer.get("version"))
                self._parts.presence.heard_since(answer.get("heard_since"))
                self._heard.note()
                unheard.worked()
            except Unavailable as exc:
                unheard.failed(exc.detail)
            await asyncio.sleep(_ANNOUNCE_INTERVAL)

    async def stop(self) -> None:
        """Drain: become unready, end held calls, finish open calls, leave."""
        parts = self._parts
        log.info("gateway_draining", gateway=self.id)
        self._wrong_doors.stop()
        self._readiness.leave()
        await self._tell_health()
        await asyncio.sleep(self._settings.drain_delay)
        parts.drain.begin()
        parts.wakes.disturb_all()
        await self._hang_up(max(1.0, GRACE - self._settings.drain_delay))
        await asyncio.gather(
            parts.forward.settle(_SETTLE_SECONDS), parts.runtime_api.settle(_SETTLE_SECONDS)
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await parts.usage.send()
        await self._leave()
        await parts.verifier.close()
        await self._http_health.stop()
        log.info("gateway_stopped", gateway=self.id)

    async def _hang_up(self, within: float) -> None:
        """Take no more calls, and finish open ones."""
        ports = {one.port for one in self._listeners}
        await asyncio.gather(
            hang_up(ports, self._parts.in_hand, within), *(one.stop(within) for one in self._http)
        )
        await asyncio.gather(*(one.server.stop(None) for one in self._listeners))

    async def _leave(self) -> None:
        await self._parts.liveness.leave()
        try:
            await self._parts.rpc.ask("Leave", patience=_LEAVE_SECONDS, kind="gateway", id=self.id)
        except Unavailable as exc:
            log.warning("gateway_left_unsaid", reason=exc.detail)

    async def _tell_health_forever(self) -> None:
        while True:
            await self._tell_health()
            await asyncio.sleep(_HEALTH_INTERVAL)

    async def _tell_health(self) -> None:
        await tell(self._health, self._readiness)


def _check_version(superlinks: str | None) -> None:
    """Raise OtherVersion if a superlink that has answered has another version."""
    if superlinks != own_version():
        raise OtherVersion(
            f"This gateway has version flower-nats {own_version()}, but superlinks have "
            f"{superlinks or 'an earlier version'}. {UPGRADE}"
        )


async def serve(settings: GatewaySettings, stop: asyncio.Event | None = None) -> None:
    """Run one gateway until `stop`, or without one until SIGTERM or SIGINT.

    Raises `Unavailable` if no NATS server answers, `CannotListen` if an address is taken, and any
    error that ended one of the gateway's own tasks.
    """
    stop = stop or stop_at_signals()
    allow_many_connections()
    set_up_allocator()
    collect_seldom()
    connecting = Connection.connect(
        settings.nats, "gateway", ca_certificate=settings.nats_ca_certificate
    )
    connection = await until(stop, connecting)
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
