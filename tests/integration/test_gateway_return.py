"""After an outage: the SuperNodes that a ServerApp and an operator get to see."""

from __future__ import annotations

import asyncio

import pytest

from flower_nats.store.replicas import Replicas
from flower_nats.superlink.api import runtime as superlink_runtime
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats_gateway.process import gateway as gateway_process
from harness.channels import WireName
from harness.clients import ServerApp
from tests.integration.gateways import Gateway, running_stack
from tests.integration.test_store_claims import pass_time


async def nodes_given(app: ServerApp) -> list[int]:
    answer = await app.call("GetNodes", runtime.GetNodesRequest())
    return sorted(node.node_id for node in answer.nodes)


async def an_outage(gateway: Gateway) -> None:
    """Make an outage: no node was heard for a while, until now."""
    await pass_time(gateway.superlink.database, 40)
    while await Replicas(gateway.superlink.database).heard_since() is None:
        await asyncio.sleep(0.05)


async def test_a_node_that_asks_for_work_is_back_and_one_that_has_ended_is_not(
    nats_url: str, pg_dsn: str, wire: WireName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_process, "_ANNOUNCE_INTERVAL", 0.2)
    monkeypatch.setattr(superlink_runtime, "_AWAIT_SECONDS", 3.0)
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        app = await gateway.server_app()
        held, asking, ghost = [await gateway.node() for _ in range(3)]
        ids = sorted(node.node_id for node in (held, asking, ghost))
        assert await nodes_given(app) == ids

        # The gateway holds a call of one node all the time; one node calls again; one is gone.
        pull = asyncio.create_task(held.pull())
        await gateway.until_in_hand(1)
        await an_outage(gateway)
        again = asyncio.create_task(asking.pull())

        assert await nodes_given(app) == sorted([held.node_id, asking.node_id])
        report = await gateway.superlink.command("Status")
        unheard = [one["node_id"] for one in report["nodes_listed"] if one["is_unheard"]]
        assert unheard == [str(ghost.node_id)]
        # A node counts from the moment of its return.
        await ghost.activate()
        assert await nodes_given(app) == ids
        for call in (pull, again):
            call.cancel()
