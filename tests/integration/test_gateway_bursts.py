"""More calls at once than a gateway can hold: clients are served, or told to come again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import islice

import pytest

from flower_nats.model.errors import Outcome
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.calls import admission
from flower_nats_gateway.calls.balancers import Balancers
from flower_nats_gateway.transports import address_limit
from flower_nats_gateway.transports.grpc import meter
from flower_nats_gateway.transports.open_sockets import open_sockets, peer_of
from harness import raw_grpc
from harness.channels import Refused, WireName
from harness.children import PATIENCE
from harness.clients import SuperNode
from tests.integration.gateways import Gateway, refusal, running_stack

CLIENTS = 40
CALLS = 100
"""Calls of each client at once: in all, more than gRPC lets wait by default."""

RESETS = 20_000


@pytest.fixture
async def gateway(nats_url: str, pg_dsn: str, wire: WireName) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


async def heartbeat(node: SuperNode) -> bool:
    request = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    return bool((await node.call("SendNodeHeartbeat", request)).success)


async def outcome_of(call: asyncio.Future[bytes]) -> str:
    try:
        await call
    except Refused as exc:
        return exc.outcome.name if exc.outcome else exc.text
    return "OK"


@pytest.mark.parametrize("wire", ["grpc"], indirect=True)
async def test_a_burst_is_answered_call_by_call(gateway: Gateway) -> None:
    method = BY_NAME[("Runtime", "GetNodes")]
    channels = [gateway.channel("Runtime") for _ in range(CLIENTS)]
    heard = await asyncio.gather(
        *(
            outcome_of(asyncio.ensure_future(one.unary(method, b"")))
            for one in channels
            for _ in range(CALLS)
        )
    )
    assert Counter(heard) == {"UNAUTHENTICATED": CLIENTS * CALLS}
    await asyncio.gather(*(one.close() for one in channels))


async def test_calls_that_cannot_be_held_are_told_to_come_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await gateway.node(), await gateway.node()
    monkeypatch.setattr(admission, "HELD", 1)
    held = asyncio.create_task(one.pull())
    await gateway.until_in_hand(1)

    refused = await refusal(other.call("PullMessages", fleet.PullMessagesRequest(node=other.node)))

    assert refused.outcome is Outcome.UNAVAILABLE
    assert "add gateways" in refused.text
    assert await heartbeat(other)
    monkeypatch.setattr(admission, "WORKING", 0)
    assert (await refusal(heartbeat(other))).outcome is Outcome.UNAVAILABLE
    monkeypatch.undo()
    assert await heartbeat(other)
    held.cancel()


@pytest.mark.parametrize("wire", ["grpc"], indirect=True)
async def test_calls_that_are_reset_at_once_harm_nobody_else(gateway: Gateway) -> None:
    node = await gateway.node()
    async with await raw_grpc.connect(gateway.address("Fleet")) as stranger:

        async def make_and_reset() -> None:
            for stream in islice(raw_grpc.stream_ids(), RESETS):
                head = raw_grpc.head_of(stream, "Fleet", "PullMessages")
                await stranger.send(head, raw_grpc.reset(stream))

        attack = asyncio.create_task(make_and_reset())
        for _ in range(20):
            assert await heartbeat(node)
        await asyncio.wait({attack}, timeout=PATIENCE)
        attack.cancel()
    await gateway.until_in_hand(0)
    assert await heartbeat(node)


@pytest.mark.parametrize("wire", ["grpc"], indirect=True)
async def test_answers_that_nobody_takes_keep_no_places(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "PAUSE", 0.5)
    node = await gateway.node()
    async with await raw_grpc.connect(gateway.address("Control"), window=0) as stranger:
        for stream in islice(raw_grpc.stream_ids(), 10):
            head = raw_grpc.head_of(stream, "Control", "ListNodes")
            await stranger.send(head, raw_grpc.message(stream, b""))
        await until_in_hand(gateway, 10)

        async with asyncio.timeout(PATIENCE):
            await end_of(stranger)

    await gateway.until_in_hand(0)
    assert await heartbeat(node)


async def until_in_hand(gateway: Gateway, calls: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await gateway.in_hand())["calls_in_hand"] != calls:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("wire", ["grpc"], indirect=True)
async def test_one_address_has_so_many_connections(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loopback address has no limit, so the test treats it like other addresses."""
    node = await gateway.node()
    monkeypatch.setattr(address_limit, "host_of", lambda _peer: "10.0.0.1")
    limit = address_limit.AddressLimit(3, Balancers())
    port = int(gateway.address("Fleet").rpartition(":")[2])
    # The limit cuts off the newest connections, however many they are.
    await asyncio.to_thread(limit.count, {port})
    strangers = [await raw_grpc.connect(gateway.address("Fleet")) for _ in range(6)]
    ours = 1
    await until_accepted(port, ours + len(strangers))

    await asyncio.to_thread(limit.count, {port})

    ends = {asyncio.create_task(end_of(one)) for one in strangers}
    async with asyncio.timeout(PATIENCE):
        while sum(one.done() for one in ends) < ours + len(strangers) - 3:
            await asyncio.sleep(0.02)
    assert await heartbeat(node)
    assert not limit.takes("127.0.0.1")
    for one in strangers:
        one.writer.transport.abort()
    await asyncio.gather(*ends)


async def until_accepted(port: int, connections: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len([one for one in open_sockets({port}) if peer_of(one)[1]]) < connections:
            await asyncio.sleep(0.02)


async def end_of(connection: raw_grpc.Connection) -> None:
    with suppress(ConnectionError):
        while await connection.reader.read(64 * 1024):
            pass
