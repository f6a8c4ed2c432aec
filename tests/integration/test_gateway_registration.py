"""SuperNodes register themselves: repeatedly, and too many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.model.errors import ApiError, Outcome
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats_gateway.calls import registrations
from flower_nats_gateway.calls.registrations import RegistrationLimit
from harness.channels import Refused, WireName
from harness.children import PATIENCE
from harness.clients import SuperNode
from tests.integration.gateways import Gateway, refusal, running_stack


@pytest.fixture
async def gateway(
    connection: Connection, nats_url: str, pg_dsn: str, wire: WireName
) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


async def register(node: SuperNode) -> int:
    request = fleet.RegisterNodeFleetRequest(public_key=node.public_key)
    return int((await node.call("RegisterNode", request)).node_id)


async def heartbeat(node: SuperNode) -> bool:
    request = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    return bool((await node.call("SendNodeHeartbeat", request)).success)


async def test_a_node_that_has_left_may_come_again_with_its_key(gateway: Gateway) -> None:
    node = await gateway.node()
    first = node.node_id
    farewell = fleet.UnregisterNodeFleetRequest(node_id=first)
    await node.call("UnregisterNode", farewell)
    # The ending process may unregister a second time.
    await node.call("UnregisterNode", farewell)

    await register(node)
    await node.activate()

    assert node.node_id != first
    assert await heartbeat(node)
    said = await refusal(node.call("UnregisterNode", farewell))
    assert said.outcome is Outcome.UNAUTHENTICATED


async def test_an_address_registers_so_many_nodes_and_the_others_a_little_later(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrations, "AT_ONCE", 2)
    monkeypatch.setattr(registrations, "A_SECOND", 1.0)
    first, second, third = (SuperNode(gateway) for _ in range(3))
    await register(first)
    await register(second)
    said = await refusal(register(third))
    assert said.outcome is Outcome.UNAVAILABLE

    # A stock SuperNode tries again.
    async with asyncio.timeout(PATIENCE):
        while not third.node_id:
            with suppress(Refused):
                third.node_id = await register(third)
    await third.activate()


def test_a_fleet_behind_one_address_registers_within_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit, now = RegistrationLimit(), 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    waiting = 10_000
    while waiting:
        for _ in range(waiting):
            try:
                limit.check("192.0.2.1")
            except ApiError:
                break
            waiting -= 1
        # Another address does not wait for these registrations.
        limit.check("192.0.2.2")
        now += 5
    assert now <= 60
