"""The runtime as real processes: NATS, PostgreSQL, superlinks and gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from flower_nats.broker.connection import Connection
from flower_nats.broker.permissions import User
from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.broker.subjects import OPERATOR
from flower_nats.embedded.balancer import Balancer as EnvoyProcess
from flower_nats.embedded.envoy import Api
from flower_nats.embedded.nats_cluster import NatsCluster
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.store.connection import Database
from flower_nats_gateway.transports.log_relay import LogRelay
from harness.balancer import Balancer, Target
from harness.children import PATIENCE
from harness.environment import free_port
from harness.postgres_pair import PostgresPair
from harness.processes import Gateway, Replica, Victim, thaw


@dataclass(frozen=True)
class Size:
    """The number of servers of each kind."""

    nats: int = 1
    superlinks: int = 2
    gateways: int = 2


class Front(Enum):
    """The balancer between clients and gateways."""

    TCP = "connections are balanced"
    ENVOY = "calls are balanced, by the balancer that `flower-nats up` runs"


class Envoy:
    """The product's own balancer and log relay, in front of all gateways."""

    name = "envoy"

    def __init__(self, folder: Path, gateways: Sequence[Gateway]) -> None:
        services = ("Http", "Runtime", "Fleet", "Control")
        relay = ("logs", "relay", "http relay")
        addresses = {name: f"127.0.0.1:{free_port()}" for name in (*services, *relay)}
        self.addresses = {service: addresses[service] for service in services}
        behind = {name: [one.addresses[name] for one in gateways] for name in services}
        apis = [
            Api(
                *("http", addresses["Http"], behind["Http"], None),
                log_relay=addresses["http relay"],
            ),
            Api("serverappio", addresses["Runtime"], behind["Runtime"], None),
            Api("fleet", addresses["Fleet"], behind["Fleet"], None),
            *Api("control", addresses["Control"], behind["Control"], None).with_log_relay(
                addresses["relay"], addresses["logs"]
            ),
        ]
        self.process = EnvoyProcess(folder / "envoy", apis, folder / "envoy.log")
        self._relay = LogRelay(
            addresses["relay"], addresses["http relay"], gateways=addresses["logs"]
        )

    async def start(self) -> None:
        """Start both."""
        await self._relay.start()
        await self.process.start()

    async def stop(self) -> None:
        """End both."""
        await self.process.stop()
        await self._relay.stop()

    async def is_healthy(self, timeout: float) -> bool:
        return self.process.exit_code() is None


class Cluster:
    """A whole runtime; each of its processes can be killed, frozen, ended and started again."""

    def __init__(
        self,
        folder: Path,
        size: Size,
        postgres: PostgresServer | PostgresPair | None = None,
        superlink_flags: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._members = NatsCluster(folder, folder) if size.nats > 1 else None
        self.nats: Sequence[NatsServer] = (
            self._members.members if self._members else (NatsServer(folder / "nats"),)
        )
        self.postgres = postgres or PostgresServer(folder / "pg", folder / "postgres.log")
        self.superlinks: list[Replica] = []
        self.gateways: list[Gateway] = []
        self._size = size
        self._superlink_flags = superlink_flags

    @property
    def nats_urls(self) -> tuple[str, ...]:
        """URLs of all NATS servers."""
        return tuple(server.url for server in self.nats)

    async def start(self) -> None:
        """Start everything and wait until it serves."""
        await asyncio.gather(self._start_nats(), self.postgres.start())
        nats = self._urls_of(User.SUPERLINK)
        for number in range(1, self._size.superlinks + 1):
            self.superlinks.append(self._superlink(f"superlink-{number}", nats, self.postgres.dsn))
        nats = self._urls_of(User.GATEWAY)
        for number in range(1, self._size.gateways + 1):
            self.gateways.append(self._gateway(f"gateway-{number}", nats))
        await asyncio.gather(*(one.start() for one in (*self.superlinks, *self.gateways)))

    @property
    def everybody(self) -> list[Victim]:
        """Every process of the runtime."""
        postgres = [self.postgres] if isinstance(self.postgres, PostgresServer) else []
        return [*self.nats, *postgres, *self.superlinks, *self.gateways]

    async def heal(self) -> None:
        """Undo every fault: thaw what is frozen, start what is dead, wait until all serve."""
        async with asyncio.timeout(PATIENCE):
            for victim in self._everybody():
                thaw(victim)
            servers: list[Victim] = [*self.nats]
            if self.postgres.exit_code() is not None:
                await self.postgres.start()
            for victim in (*servers, *self.superlinks, *self.gateways):
                if victim.exit_code() is not None:
                    await victim.start()
            async with self.connection() as connection:
                await RpcClient(connection).ask("Status", service=OPERATOR, patience=PATIENCE)
                # NATS servers elect leaders after their start.
                trials = StreamTrials(connection)
                while not trials():
                    await trials.look()

    async def close(self) -> None:
        """End all processes."""
        for victim in self._everybody():
            thaw(victim)
        await asyncio.gather(*(one.stop(5.0) for one in self.gateways))
        await asyncio.gather(*(one.stop(5.0) for one in self.superlinks))
        await asyncio.gather(*(one.stop() for one in self.nats), self.postgres.stop())

    @asynccontextmanager
    async def balancer(self, front: Front) -> AsyncIterator[Balancer]:
        """Run a balancer in front of the gateways while the context lasts."""
        async with AsyncExitStack() as stack:
            targets: Sequence[Target] = self.gateways
            if front is Front.ENVOY:
                targets = [await stack.enter_async_context(self.envoy())]
            balancer = await stack.enter_async_context(Balancer(targets))
            async with asyncio.timeout(PATIENCE):
                await balancer.until_healthy()
            yield balancer

    @asynccontextmanager
    async def envoy(self) -> AsyncIterator[Envoy]:
        """Run the product's balancer while the context lasts."""
        envoy = Envoy(self.folder, self.gateways)
        try:
            await envoy.start()
            yield envoy
        finally:
            await envoy.stop()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Open a connection to NATS."""
        connection = await Connection.connect(self.nats_urls, "faults", PATIENCE)
        try:
            yield connection
        finally:
            await connection.close()

    async def leader(self, stream: str) -> NatsServer:
        """The NATS server that leads a stream."""
        async with self.connection() as connection:
            name = (await connection.info(stream))["cluster"]["leader"]
        [leading] = [server for server in self.nats if server.name == name]
        return leading

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Open a connection to the database."""
        database = Database(self.postgres.dsn, max_connections=1, patience=PATIENCE)
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    def _everybody(self) -> list[Victim]:
        return [*self.nats, *self.superlinks, *self.gateways]

    def _urls_of(self, user: User) -> str:
        return ",".join(server.url_of(user) for server in self.nats)

    async def _start_nats(self) -> None:
        if self._members is not None:
            await self._members.start()
        else:
            await self.nats[0].start()

    def _superlink(self, name: str, nats: str, dsn: str) -> Replica:
        secrets = {"FLOWER_NATS_SUPERLINK_NATS": nats, "FLOWER_NATS_SUPERLINK_DATABASE": dsn}
        command = ["superlink", "--isolation", "process", *self._superlink_flags]
        return Replica(name, command, secrets, self.folder, "superlink_ready")

    def _gateway(self, name: str, nats: str) -> Gateway:
        apis = ("Http", "Runtime", "Fleet", "Control")
        addresses = {api: f"127.0.0.1:{free_port()}" for api in apis}
        secrets = {"FLOWER_NATS_GATEWAY_NATS": nats}
        return Gateway(name, addresses, f"127.0.0.1:{free_port()}", secrets, self.folder)
