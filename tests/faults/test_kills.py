"""`kill -9` of one process of the runtime, while a run is under way."""

from __future__ import annotations

from flower_nats.broker.subjects import LOGS_STREAM
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


async def test_the_nats_server_that_leads_the_log_is_killed_when_a_run_ends(
    cluster: Cluster, running: Trial
) -> None:
    """Nothing can be added to the log for seconds then, and stock does not wait for that."""
    leading = await cluster.leader(LOGS_STREAM)

    running.app.before_last_line = lambda: kill(leading)
    await running.end(within=60)
    await leading.start()

    await running.assert_unharmed()
