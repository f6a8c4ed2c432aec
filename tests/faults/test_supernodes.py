"""SuperNodes that die, and what they get when they come back."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.trial import Trial, fresh_trial
from tests.harness.balancer import Moment
from tests.harness.cluster import Cluster
from tests.harness.nodes import StockNode


async def test_a_supernode_killed_after_its_receipt_gets_its_instruction_again(
    running: Trial,
) -> None:
    victim = running.nodes[0]
    instruction = await victim.get_busy(within=30)

    await victim.kill()
    back = StockNode(victim.number, await running.wire("Fleet"), victim.key)
    await back.come_online()
    running.nodes[0] = back

    assert back.node_id == victim.node_id
    await running.app.more_rounds(2, within=30)
    assert instruction in back.confirmed
    await running.end_unharmed()


@pytest.mark.parametrize("method", ["RegisterNode", "ActivateNode"])
async def test_a_supernode_whose_first_answers_are_lost_comes_online(
    cluster: Cluster, method: str
) -> None:
    async with fresh_trial(cluster) as trial:
        node = StockNode(1, await trial.wire("Fleet"))
        trial.nodes = [node]
        cut = node.wire.line.cut_at(Moment.ANSWER, f"/{method}".encode())

        async with asyncio.timeout(20):
            await node.join()

        assert cut.done.is_set()
        assert await trial.gone() == []
