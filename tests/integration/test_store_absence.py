"""A gateway that is stopped for a while hears nobody: that is not the silence of who it has heard."""

from __future__ import annotations

import pytest

from flower_nats.store.connection import Database
from flower_nats.store.nodes import ABSENCE, Nodes
from flower_nats.store.replicas import Replicas
from tests.integration.test_store_claims import pass_time


class Gateways:
    """Two gateways, `stopped` and `running`, and a node at each."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.nodes = Nodes(database)
        self.replicas = Replicas(database)

    async def connect_nodes(self) -> tuple[int, int]:
        await self.announce("stopped", "running")
        ids = []
        for gateway in ("stopped", "running"):
            await self.nodes.register(gateway.encode(), "owner", "name", 0)
            ids.append(await self.nodes.activate(gateway.encode(), 30, gateway))
        assert ids[0] is not None and ids[1] is not None
        return ids[0], ids[1]

    async def announce(self, *gateways: str) -> None:
        for gateway in gateways:
            await self.replicas.announce("gateway", gateway, 1.0)
            await self.replicas.heard()

    async def pass_time(self, seconds: float, *announcing: str) -> None:
        passed = 0.0
        while passed < seconds:
            await pass_time(self.database, 5)
            await self.announce(*announcing)
            passed += 5


@pytest.fixture
def gateways(database: Database) -> Gateways:
    return Gateways(database)


async def test_nodes_of_a_stopped_gateway_do_not_go_offline(gateways: Gateways) -> None:
    behind_stopped, behind_running = await gateways.connect_nodes()

    await gateways.pass_time(70, "running")

    assert await gateways.nodes.expire() == [behind_running]
    assert [node.node_id for node in await gateways.nodes.online()] == [behind_stopped]


async def test_they_have_as_long_as_before_when_it_is_back(gateways: Gateways) -> None:
    behind_stopped, _ = await gateways.connect_nodes()
    await gateways.pass_time(70, "running")
    await gateways.nodes.expire()

    assert await gateways.replicas.announce("gateway", "stopped", 1.0) == pytest.approx(70, abs=5)

    await gateways.pass_time(50, "running", "stopped")
    assert await gateways.nodes.expire() == []
    await gateways.pass_time(20, "running", "stopped")
    assert await gateways.nodes.expire() == [behind_stopped]


async def test_they_go_offline_when_it_does_not_come_back(gateways: Gateways) -> None:
    behind_stopped, _ = await gateways.connect_nodes()

    await gateways.pass_time(ABSENCE, "running")

    assert behind_stopped in await gateways.nodes.expire()


async def test_a_node_that_has_turned_to_another_gateway_is_heard_there(
    gateways: Gateways,
) -> None:
    behind_stopped, _ = await gateways.connect_nodes()
    await gateways.pass_time(20, "running")
    await gateways.nodes.heartbeats([(behind_stopped, 30)], "running")

    await gateways.pass_time(70, "running")

    assert behind_stopped in await gateways.nodes.expire()


async def test_they_wait_no_longer_for_it_after_an_outage_of_everything(
    gateways: Gateways,
) -> None:
    behind_stopped, _ = await gateways.connect_nodes()
    await gateways.pass_time(40)

    await gateways.pass_time(50, "running")
    assert await gateways.nodes.expire() == []
    await gateways.pass_time(20, "running")

    assert behind_stopped in await gateways.nodes.expire()


async def test_an_outage_of_everything_is_given_back_once(gateways: Gateways) -> None:
    behind_stopped, _ = await gateways.connect_nodes()
    await gateways.pass_time(40)

    await gateways.announce("stopped", "running")

    await gateways.pass_time(50, "running", "stopped")
    assert await gateways.nodes.expire() == []
    await gateways.pass_time(20, "running", "stopped")
    assert behind_stopped in await gateways.nodes.expire()
