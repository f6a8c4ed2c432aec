"""Gateways that count as silent: the ends of runs wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.hints import Wakes
from flower_nats_gateway.cluster.liveness import GatewayLiveness
from harness.children import PATIENCE


@pytest.fixture
async def peers(connection: Connection) -> AsyncIterator[GatewayLiveness]:
    wakes = Wakes(connection)
    peers = GatewayLiveness(connection, "this one")
    wakes.on_gateway(peers.note)
    wakes.on_loss(peers.note_loss)
    await wakes.start()
    await peers.start()
    yield peers
    await peers.leave()


async def appear(connection: Connection, gateway: str) -> None:
    """Give a single sign of life of a gateway."""

    async def hang(_question: Msg) -> None:
        pass

    await connection.subscribe(subjects.gateway(gateway), hang)
    await connection.hint(subjects.event_gateway(gateway))


async def test_a_gateway_that_is_dead_is_forgotten_before_one_that_may_be_stopped(
    nats_url: str, peers: GatewayLiveness
) -> None:
    there = await Connection.connect([nats_url], "there")
    dead = await Connection.connect([nats_url], "dead")
    try:
        await appear(there, "stopped")
        await appear(dead, "dead")
        async with asyncio.timeout(PATIENCE):
            while set(peers.silent()) != {"stopped", "dead"}:
                await asyncio.sleep(0.05)

            await dead.close()
            while "dead" in peers.silent():
                await asyncio.sleep(0.05)
        assert set(peers.silent()) == {"stopped"}
    finally:
        await there.close()
        await dead.close()


async def test_a_gateway_that_is_heard_again_is_not_silent(
    nats_url: str, peers: GatewayLiveness
) -> None:
    other = await Connection.connect([nats_url], "other")
    try:
        await appear(other, "other")
        async with asyncio.timeout(PATIENCE):
            while not peers.silent():
                await asyncio.sleep(0.05)
            await other.hint(subjects.event_gateway("other"))
            while peers.silent():
                await asyncio.sleep(0.02)
            while not peers.silent():
                await asyncio.sleep(0.05)
    finally:
        await other.close()
