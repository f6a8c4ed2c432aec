"""SIGSTOP: a replica that is alive, holds its connections and does nothing."""

from __future__ import annotations

import asyncio

import pytest

from flower_nats.broker.subjects import MESSAGES_STREAM
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from harness.cluster import Cluster, Front
from harness.nodes import StockNode
from harness.processes import freeze, kill, terminate, thaw
from tests.faults.conftest import FULL
from tests.faults.trial import BOTH, Trial, Wires, fresh_trial

FREEZE_SECONDS = 70.0 if FULL else 12.0


@pytest.mark.parametrize("first", [0, 1])
async def test_a_gateway_is_frozen(cluster: Cluster, running: Trial, first: int) -> None:
    freeze(cluster.gateways[first])
    await asyncio.sleep(FREEZE_SECONDS)
    thaw(cluster.gateways[first])
    await running.app.more_rounds(2)

    await running.end_unharmed()


@BOTH
@pytest.mark.parametrize("running", [Front.ENVOY], indirect=True)
async def test_a_gateway_is_frozen_when_a_run_ends(cluster: Cluster, running: Trial) -> None:
    """The balancer sends calls to the frozen gateway for a second, and moves them after seven."""
    frozen = cluster.gateways[0]

    async def freeze_it() -> None:
        freeze(frozen)

    running.app.before_last_line = freeze_it
    await running.end()
    thaw(frozen)

    await running.assert_unharmed()
    running.assert_log_unbroken()


async def test_a_superlink_is_frozen(cluster: Cluster, running: Trial) -> None:
    freeze(cluster.superlinks[0])
    await asyncio.sleep(FREEZE_SECONDS)
    thaw(cluster.superlinks[0])
    await running.app.more_rounds(2)

    await running.end_unharmed()
    running.assert_log_unbroken()


@BOTH
@pytest.mark.parametrize("running", [Front.ENVOY], indirect=True)
async def test_a_superlink_is_frozen_when_a_run_ends(cluster: Cluster, running: Trial) -> None:
    """The gateways are new and know no superlink: every second question reaches the frozen one."""
    frozen = cluster.superlinks[0]

    async def freeze_it() -> None:
        for gateway in cluster.gateways:
            await terminate(gateway)
            await gateway.start()
        freeze(frozen)

    running.app.before_last_line = freeze_it
    await running.end()
    thaw(frozen)

    await running.assert_unharmed()
    running.assert_log_unbroken()


async def test_a_superlink_is_frozen_in_all_of_a_short_run(cluster: Cluster, wires: Wires) -> None:
    frozen = cluster.superlinks[0]
    async with fresh_trial(cluster, wires, Front.ENVOY) as trial:
        await trial.connect()
        trial.app.limit = 1
        freeze(frozen)
        await trial.start()
        await trial.end()
        thaw(frozen)

        await trial.assert_unharmed()
        trial.assert_log_unbroken()


async def test_the_nats_server_that_leads_is_frozen(cluster: Cluster, running: Trial) -> None:
    frozen = await cluster.leader(MESSAGES_STREAM)
    freeze(frozen)
    await asyncio.sleep(FREEZE_SECONDS)
    thaw(frozen)
    await running.app.more_rounds(2)

    await running.end_unharmed()
    running.assert_log_unbroken()


async def test_a_farewell_that_waited_in_a_frozen_superlink_is_not_heard(
    cluster: Cluster, running: Trial
) -> None:
    frozen, other = cluster.superlinks
    node = running.nodes[0]
    await kill(other)
    freeze(frozen)
    farewell = asyncio.create_task(
        node.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=node.node_id))
    )
    # The request waits in the frozen superlink, and the gateway asks again.
    await asyncio.sleep(1)
    await other.start()
    await farewell
    await node.activate()

    # Wait shorter than the node's heartbeat interval: a heartbeat would bring the node back.
    await asyncio.sleep(3)
    thaw(frozen)
    await asyncio.sleep(3)

    assert await is_online(running, node)
    await running.end()


async def is_online(running: Trial, node: StockNode) -> bool:
    wire = await running.wire("Control")
    answer = await wire.call("Control", "ListNodes", control.ListNodesRequest())
    await wire.close()
    (status,) = [info.status for info in answer.nodes_info if info.node_id == node.node_id]
    return bool(status == "online")
