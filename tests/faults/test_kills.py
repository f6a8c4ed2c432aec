"""`kill -9` of one process of the runtime, while a run is under way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flower_nats.broker.subjects import LOGS_STREAM
from harness.cluster import Cluster, Front
from harness.processes import Victim, kill
from tests.faults.trial import BOTH, Trial


async def kill_each(victims: Sequence[Victim], running: Trial) -> None:
    """Kill each victim in turn; the run goes on without it, and after its return."""
    for victim in victims:
        await kill(victim)
        await running.app.more_rounds(3)
        await victim.start()
        await running.app.more_rounds(1)


@BOTH
async def test_a_gateway_is_killed(cluster: Cluster, running: Trial) -> None:
    await kill_each(cluster.gateways, running)

    await running.end_unharmed()


@BOTH
@pytest.mark.parametrize("running", [Front.ENVOY], indirect=True)
async def test_a_gateway_is_killed_behind_our_balancer(cluster: Cluster, running: Trial) -> None:
    await kill_each(cluster.gateways, running)

    await running.end_unharmed()
    running.assert_log_unbroken()


async def test_a_superlink_is_killed(cluster: Cluster, running: Trial) -> None:
    await kill_each(cluster.superlinks, running)

    await running.end_unharmed()
    running.assert_log_unbroken()


async def test_a_nats_server_is_killed(cluster: Cluster, running: Trial) -> None:
    await kill_each(cluster.nats, running)

    await running.end_unharmed()
    running.assert_log_unbroken()


@BOTH
async def test_the_nats_server_that_leads_the_log_is_killed_when_a_run_ends(
    cluster: Cluster, running: Trial
) -> None:
    """The log then takes no lines for seconds, and a stock ServerApp does not wait for it."""
    leading = await cluster.leader(LOGS_STREAM)

    async def kill_it() -> None:
        # A stock ServerApp sends one batch of lines after the other. The last line waits for the
        # answer to the batch before. This may take longer than the ServerApp lives.
        await running.app.until_sent()
        await kill(leading)

    running.app.before_last_line = kill_it
    await running.end()
    await leading.start()

    await running.assert_unharmed()
    running.assert_log_unbroken()
