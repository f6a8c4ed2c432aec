"""Servers and replicas end in good order and come back."""

from __future__ import annotations

from harness.cluster import Cluster
from harness.processes import terminate
from tests.faults.trial import Trial


async def test_postgres_restarts(cluster: Cluster, running: Trial) -> None:
    await cluster.postgres.stop()
    await cluster.postgres.start()
    await running.app.more_rounds(3)

    await running.end_unharmed()
    running.assert_log_unbroken()


async def test_everything_restarts_one_at_a_time(cluster: Cluster, running: Trial) -> None:
    for replica in (*cluster.gateways, *cluster.superlinks):
        await terminate(replica)
        await running.app.more_rounds(1)
        await replica.start()
        await running.app.more_rounds(1)
    for server in cluster.nats:
        await server.stop()
        await server.start()
        await running.app.more_rounds(1)
    await cluster.postgres.stop()
    await cluster.postgres.start()
    await running.app.more_rounds(2)

    await running.end_unharmed()
