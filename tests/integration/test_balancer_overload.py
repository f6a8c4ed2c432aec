"""The balancer at its limits: clients are told to come again, and are served once there is room."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from flower_nats.embedded import balancer as balancer_module
from flower_nats.embedded import envoy
from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.model.errors import Outcome
from flower_nats.wire.methods import BY_NAME
from harness.channels import CHANNELS, Channel, Refused, WireName
from harness.children import PATIENCE
from harness.environment import accepts_connections
from harness.waiting import until
from tests.integration.gateways import free_address
from tests.integration.test_balancer import front, upstream

_MIB = 1024 * 1024

GET_NODES = BY_NAME[("Runtime", "GetNodes")]
PUSH = BY_NAME[("Runtime", "PushMessages")]

HELD = 3.0
"""Seconds for which gateways hold the calls that fill the balancer."""


@pytest.mark.parametrize("wire", ["grpc", "http"])
async def test_without_memory_calls_are_told_to_come_again_and_are_served_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: WireName
) -> None:
    monkeypatch.setattr(balancer_module, "_heap", lambda: 96 * _MIB)
    grpc_address, http_address, listen = free_address(), free_address(), free_address()
    stand_in = upstream(tmp_path, grpc_address, http_address)
    apis = [
        Api("http", listen, [http_address], None),
        Api("serverappio", free_address(), [grpc_address], None),
    ]
    balancer, channel = Balancer(tmp_path / "balancer", apis), CHANNELS[wire](listen)
    try:
        await stand_in.start()
        await until(lambda: accepts_connections(http_address))
        await balancer.start()
        assert await channel.unary(GET_NODES, b"who", timeout=PATIENCE)
        # The balancer keeps requests until their answers, because it may have to repeat them.
        body = f"hold {HELD}".encode().ljust(50 * _MIB)
        large = [asyncio.create_task(channel.unary(PUSH, body, timeout=PATIENCE)) for _ in range(4)]

        refused = await first_refusal(channel)

        assert refused.outcome is Outcome.UNAVAILABLE
        await asyncio.gather(*large, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            while not await is_served(channel):
                await asyncio.sleep(0.1)
    finally:
        await channel.close()
        await balancer.stop()
        await stand_in.stop()


async def first_refusal(channel: Channel) -> Refused:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await channel.unary(GET_NODES, b"who", timeout=PATIENCE)
            except Refused as exc:
                return exc
            await asyncio.sleep(0.02)


async def is_served(channel: Channel) -> bool:
    try:
        return bool(await channel.unary(GET_NODES, b"who", timeout=PATIENCE))
    except Refused as exc:
        assert exc.outcome is Outcome.UNAVAILABLE
        return False


async def test_connections_that_are_too_many_are_closed_and_the_others_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envoy, "_CLIENT_CONNECTIONS", 4)
    async with front(tmp_path) as there:
        assert await there.serving_pid()
        host, _, port = there.balancer._apis[0].listen.rpartition(":")
        strangers = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
        ends = [asyncio.create_task(reader.read(1)) for reader, _ in strangers]

        async with asyncio.timeout(PATIENCE):
            while sum(one.done() for one in ends) < 5:
                await asyncio.sleep(0.02)

        assert await there.serving_pid()
        assert not all(one.done() for one in ends)
        for _, writer in strangers:
            writer.transport.abort()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_a_burst_over_one_connection_is_answered_call_by_call(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        calls = (there.call("Runtime.PullMessages", b"hold 0.2", 60) for _ in range(2000))
        answers = await asyncio.gather(*calls)
    assert set(Counter(int(answer.split()[0]) for answer in answers)) == {
        one.pid for one in there.upstreams
    }
