"""SuperNodes die, and get their instruction again when they come back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.balancer import Moment
from harness.channels import WireName
from harness.children import PATIENCE
from harness.cluster import Cluster
from harness.supernodes import StockSuperNode, fab
from tests.faults.trial import Trial, Wires, fresh_trial


async def test_a_supernode_killed_after_its_receipt_gets_its_instruction_again(
    running: Trial,
) -> None:
    victim = running.nodes[0]
    instruction = await victim.get_busy()

    await victim.kill()
    back = await running.node(victim.number, victim.key)
    await back.come_online()
    running.nodes[0] = back

    assert back.node_id == victim.node_id
    await running.app.more_rounds(2)
    assert instruction in back.confirmed
    await running.end_unharmed()


@pytest.mark.parametrize("method", ["RegisterNode", "ActivateNode"])
async def test_a_supernode_whose_first_answers_are_lost_comes_online(
    cluster: Cluster, wires: Wires, method: str
) -> None:
    async with fresh_trial(cluster, wires) as trial:
        node = await trial.node(1)
        trial.nodes = [node]
        cut = node.wire.line.cut_at(Moment.ANSWER, method)

        async with asyncio.timeout(PATIENCE):
            await node.join()

        assert cut.done.is_set()
        assert await trial.gone() == []


@pytest.mark.parametrize("wire", [pytest.param("grpc", marks=pytest.mark.long), "http"])
@pytest.mark.parametrize(
    ("method", "is_given_up"),
    [
        ("PullObject", True),
        pytest.param("ConfirmMessageReceived", False, marks=pytest.mark.long),
    ],
)
async def test_a_stock_supernode_goes_on_when_a_run_is_stopped_while_it_receives(
    cluster: Cluster,
    wires: Wires,
    tmp_path: Path,
    wire: WireName,
    method: str,
    is_given_up: bool,
) -> None:
    """The SuperNode gives up the message with its ClientApp, or takes it and gives up the reply.

    A SuperNode that is refused like a late one does neither: its ClientApp waits for objects for an
    hour, or its reply is sent in the place of the next reply.
    """
    async with fresh_trial(cluster, wires) as trial:
        line = await trial.balancer.line("Fleet", wire)
        node = StockSuperNode(1, wire, line.address, tmp_path)
        trial.processes = [node]
        try:
            await node.until_online()
            await trial.submit(fab())
            cut = line.cut_at(Moment.REQUEST, method, and_shut=True)
            await trial.app.start()
            async with asyncio.timeout(PATIENCE):
                await cut.done.wait()

            await trial.stop()
            line.open_again()
            await trial.close()

            await trial.submit(fab())
            await trial.start()
            await trial.end()
            assert trial.app.death is None
            assert set(trial.app.outcomes.values()) == {1}
            assert not trial.app.errors
            assert node.death is None
            given_up = [one for one in node.losses if "Failed to receive message" in one]
            assert len(given_up) == is_given_up
        finally:
            await node.kill()
