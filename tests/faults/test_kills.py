"""`kill -9` of one process of the runtime, while a run is under way."""

from __future__ import annotations

from tests.faults.trial import Trial
from tests.harness.cluster import Cluster
from tests.harness.processes import kill


async def test_a_gateway_is_killed(cluster: Cluster, running: Trial) -> None:
    for gateway in cluster.gateways:
        await kill(gateway)
        await running.app.more_rounds(3, within=60)
        await gateway.start()
        await running.app.more_rounds(1, within=60)

    await running.end_unharmed()


async def test_a_superlink_is_killed(cluster: Cluster, running: Trial) -> None:
    for superlink in cluster.superlinks:
        await kill(superlink)
        await running.app.more_rounds(3, within=60)
        await superlink.start()
        await running.app.more_rounds(1, within=60)

    await running.end_unharmed()


async def test_a_nats_server_is_killed(cluster: Cluster, running: Trial) -> None:
    for server in cluster.nats:
        await kill(server)
        await running.app.more_rounds(3, within=60)
        await server.start()
        await running.app.more_rounds(1, within=60)

    await running.end_unharmed()
