"""The servers under test: our whole runtime, or one stock SuperLink; each process can be killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.plan import Plan
from benchmarks.flower import VERSIONS, flower
from benchmarks.targets import StockSqlite
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.embedded.process import OwnedProcess, ProcessFailedError, ProcessSpec
from harness.children import PATIENCE
from harness.cluster import Cluster, Size
from harness.environment import accepts_connections, clean_environment
from harness.flower import GRPC
from harness.processes import Victim


@dataclass(frozen=True)
class Mark:
    """A process that may be killed."""

    kind: str
    victim: Victim


@dataclass(frozen=True)
class Servers:
    """A running server under test."""

    name: str
    addresses: Mapping[str, str]
    """`host:port` of each API over gRPC, by API; of all APIs over HTTP, by `Http`."""

    marks: Sequence[Mark]


@asynccontextmanager
async def flower_nats(folder: Path, plan: Plan) -> AsyncIterator[Servers]:
    """Run the servers of `up --replicas`; the balancer and this process are not killed."""
    postgres = PostgresServer(folder / "pg", folder / "postgres.log")
    cluster = Cluster(folder, Size(plan.nats_servers, plan.replicas, plan.replicas), postgres)
    try:
        await cluster.start()
        async with cluster.envoy() as envoy:
            marks = [
                *(Mark("gateway", one) for one in cluster.gateways),
                *(Mark("superlink", one) for one in cluster.superlinks),
                *(Mark("nats", one) for one in cluster.nats),
                Mark("postgres", postgres),
            ]
            yield Servers("flower-nats", envoy.addresses, marks)
    finally:
        await cluster.close()


@asynccontextmanager
async def stock(folder: Path, plan: Plan) -> AsyncIterator[Servers]:
    """Run one `flower-superlink` whose state is in a SQLite file."""
    target = StockSqlite(folder, flower(VERSIONS[GRPC]))
    apis = target.addresses
    addresses = {"Runtime": apis.serverappio, "Fleet": apis.fleet, "Control": apis.control}
    one = _Stock(target, list(addresses.values()))
    try:
        await one.start()
        yield Servers(target.name, addresses, [Mark("superlink", one)])
    finally:
        await one.stop()


class _Stock(OwnedProcess):
    """A stock SuperLink; its start ends when it takes connections."""

    def __init__(self, target: StockSqlite, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        spec = ProcessSpec(
            name="flower-superlink",
            command=target.command(),
            environment=clean_environment(target.environment()),
            log=target.directory / "superlink.log",
        )
        super().__init__(spec)

    async def start(self) -> None:
        await super().start()
        async with asyncio.timeout(PATIENCE):
            while not all(accepts_connections(one) for one in self._addresses):
                if self.exit_code() is not None:
                    raise self.failure()
                await asyncio.sleep(0.05)


SERVERS = {"flower-nats": flower_nats, "stock": stock}
"""The servers by their names on the command line."""

StartError = (ProcessFailedError, TimeoutError)
"""The errors of a process that does not come up."""
