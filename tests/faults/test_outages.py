"""A server is gone for a while: no answer is worse than UNAVAILABLE, and nothing expires."""

from __future__ import annotations

import asyncio

import pytest

from harness.cluster import Cluster, Front
from harness.processes import kill
from tests.faults.conftest import FULL
from tests.faults.trial import Trial

OUTAGE_SECONDS = 30.0 if FULL else 10.0


async def test_nats_is_gone_entirely(cluster: Cluster, running: Trial) -> None:
    await asyncio.gather(*(kill(server) for server in cluster.nats))
    await asyncio.sleep(OUTAGE_SECONDS)
    await asyncio.gather(*(server.start() for server in cluster.nats))
    await running.app.more_rounds(2)

    await running.end_unharmed()
    running.assert_log_unbroken()


async def test_the_majority_of_nats_is_gone(cluster: Cluster, running: Trial) -> None:
    lost = cluster.nats[1:]
    await asyncio.gather(*(kill(server) for server in lost))
    await asyncio.sleep(OUTAGE_SECONDS)
    await asyncio.gather(*(server.start() for server in lost))
    await running.app.more_rounds(2)

    await running.end_unharmed()
    running.assert_log_unbroken()


# After 15 s no gateway is ready. Our balancer still sends calls then. A balancer that obeys refuses
# new connections, and clients over HTTP have no others.
@pytest.mark.parametrize("running", [Front.ENVOY], indirect=True)
async def test_postgres_is_gone_entirely(cluster: Cluster, running: Trial) -> None:
    busy = running.nodes[0]
    await busy.get_busy()
    await cluster.postgres.stop()
    await asyncio.sleep(OUTAGE_SECONDS)
    # The gateways' cached knowledge of nodes, tasks and runs has expired, and still counts.
    busy.thinking.set()
    await running.app.more_rounds(1)
    await cluster.postgres.start()
    await running.app.more_rounds(2)

    await running.end_unharmed()
    running.assert_log_unbroken()
