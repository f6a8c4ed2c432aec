"""What is put to the test: our whole runtime, or one stock SuperLink; each process can be killed."""

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
    """A server under test, up."""

    name: str
    addresses: Mapping[str, str]
    """Where clients call, `host:port`: by API over gRPC, and by `Http` for all of them over HTTP."""

    marks: Sequence[Mark]


@asynccontextmanager
async def flower_nats(folder: Path, plan: Plan) -> AsyncIterator[Servers]:
    """Run all that a user of `up --replicas` runs; the balancer and we ourselves are not killed."""
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
    """A stock SuperLink, up when it takes connections."""

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
"""By what the command line calls them."""

StartError = (ProcessFailedError, TimeoutError)
"""What a process raises that does not come up."""
