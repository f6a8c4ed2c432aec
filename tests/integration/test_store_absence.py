"""A gateway is stopped for a while and hears no node: this does not count as the nodes' silence."""

from __future__ import annotations

import pytest

from flower_nats.model.caller import NO_ACCOUNT_ID, NO_ACCOUNT_NAME
from flower_nats.store.connection import Database
from flower_nats.store.nodes import ABSENCE, RETURN_SECONDS, Nodes
from flower_nats.store.replicas import Replicas
from tests.integration.test_store_claims import RUN, make_run, pass_time


class Gateways:
    """Two gateways, `stopped` and `running`, and a node at each."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.nodes = Nodes(database)
        self.replicas = Replicas(database)

    async def connect_nodes(self) -> tuple[int, int]:
        await make_run(self.database)
        await self.announce("stopped", "running")
        ids = []
        for gateway in ("stopped", "running"):
            await self.nodes.register(gateway.encode(), NO_ACCOUNT_ID, NO_ACCOUNT_NAME, 0)
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
    assert await online(gateways) == [behind_stopped]


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


async def online(gateways: Gateways) -> list[int]:
    return [node.node_id for node in await gateways.nodes.online_of_run(RUN)]


async def test_after_an_outage_nodes_count_once_they_were_heard_again(gateways: Gateways) -> None:
    one, other = await gateways.connect_nodes()
    assert sorted(await online(gateways)) == sorted([one, other])
    assert not await gateways.nodes.is_awaited(RUN)

    # Given an outage of everything.
    await gateways.pass_time(40)
    await gateways.announce("stopped", "running")

    # No node was heard, but all nodes may be heard again.
    assert await online(gateways) == []
    assert await gateways.nodes.is_awaited(RUN)
    # A node is heard by a heartbeat, or seen by a request for work.
    await gateways.nodes.heartbeats([(one, 30)], "running")
    assert await online(gateways) == [one]
    await gateways.nodes.seen([other], "running")
    assert sorted(await online(gateways)) == sorted([one, other])
    assert not await gateways.nodes.is_awaited(RUN)


async def test_a_node_that_ended_in_an_outage_is_not_waited_for_for_long(
    gateways: Gateways,
) -> None:
    alive, ghost = await gateways.connect_nodes()
    await gateways.pass_time(40)
    await gateways.announce("stopped", "running")
    await gateways.nodes.seen([alive], "running")

    await gateways.pass_time(RETURN_SECONDS, "stopped", "running")

    assert not await gateways.nodes.is_awaited(RUN)
    assert await online(gateways) == [alive]
    # The node is online from the moment of its return.
    await gateways.nodes.activate(b"running", 30, "running")
    assert sorted(await online(gateways)) == sorted([alive, ghost])


async def test_an_outage_is_known_by_its_end_to_every_gateway(gateways: Gateways) -> None:
    await gateways.connect_nodes()
    assert await gateways.replicas.heard_since() is None

    await gateways.pass_time(40)
    await gateways.announce("running")

    first = await gateways.replicas.heard_since()
    await gateways.announce("stopped", "running")
    assert first is not None
    assert await gateways.replicas.heard_since() == first


async def test_nodes_that_are_gone_for_long_leave_the_lists_and_come_back_to_them(
    gateways: Gateways,
) -> None:
    one, other = await gateways.connect_nodes()
    await gateways.nodes.deactivate(one)
    await pass_time(gateways.database, 3 * 86400)

    assert await gateways.nodes.unlist(2 * 86400) == 1

    assert [node.node_id for node in await gateways.nodes.owned_by(NO_ACCOUNT_ID)] == [other]
    assert [node.node_id for node in await gateways.nodes.listed(10)] == [other]
    assert await gateways.nodes.counts() == {"online": 1}
    # The row of the node stays: its key still stands for the same node.
    assert await gateways.nodes.activate(b"stopped", 30, "running") == one
    assert len(await gateways.nodes.owned_by(NO_ACCOUNT_ID)) == 2
