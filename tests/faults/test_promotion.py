"""The database's primary is lost for good during a run, and its synchronous standby is promoted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.subjects import OPERATOR
from harness.cluster import Cluster, Size
from harness.postgres_pair import PostgresPair
from harness.processes import kill_all
from tests.faults.conftest import FULL
from tests.faults.trial import Wires, running_trial

NOTICE_SECONDS = 30.0 if FULL else 5.0
"""Seconds until an operator, or a tool, sees that the primary is gone."""


@asynccontextmanager
async def running_pair(folder: Path, size: Size) -> AsyncIterator[tuple[Cluster, PostgresPair]]:
    postgres = PostgresPair(folder / "pg")
    cluster = Cluster(folder, size, postgres)
    try:
        await cluster.start()
        yield cluster, postgres
    finally:
        await cluster.close()


async def standbys(cluster: Cluster) -> tuple[int, int]:
    """Return a superlink's count of standbys of the database, and of synchronous standbys."""
    async with cluster.connection() as connection:
        status = await RpcClient(connection).ask("Status", service=OPERATOR)
    database = status["durability"]["database"]
    return database["standbys"], database["synchronous_standbys"]


async def test_a_standby_takes_over_from_the_primary(tmp_path: Path, wires: Wires) -> None:
    async with (
        running_pair(tmp_path, Size(nats=1)) as (cluster, postgres),
        running_trial(cluster, wires) as running,
    ):
        assert await standbys(cluster) == (1, 1)
        await postgres.lose_primary()
        await asyncio.sleep(NOTICE_SECONDS)
        await postgres.promote()
        await running.app.more_rounds(2)
        assert await standbys(cluster) == (0, 0)

        await running.end_unharmed()
        running.assert_log_unbroken()


async def test_a_zone_is_lost_with_one_of_each_and_the_primary(
    tmp_path: Path, wires: Wires
) -> None:
    async with (
        running_pair(tmp_path, Size(nats=3)) as (cluster, postgres),
        running_trial(cluster, wires) as running,
    ):
        zone = cluster.nats[0], cluster.superlinks[0], cluster.gateways[0]
        await asyncio.gather(postgres.lose_primary(), kill_all(zone))
        await asyncio.sleep(NOTICE_SECONDS)
        await postgres.promote()
        await running.app.more_rounds(2)

        await running.end_unharmed()
