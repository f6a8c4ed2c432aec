"""A gateway behind the balancer knows each client's address, for its limits and its log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.embedded.ports import free_ports
from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from flower_nats.wire.request_id import CLIENT_ADDRESS
from flower_nats_gateway.transports.log_relay import BALANCER, LogRelay
from harness.channels import CHANNELS, Channel, Metadata, WireName
from harness.clients import SuperNode
from harness.environment import outer_host
from tests.integration.gateways import Gateway, free_address, refusal, running_stack

OUTER = outer_host() or ""
FORGED: Metadata = [(CLIENT_ADDRESS, "203.0.113.7")]
CALLS = 3
"""Calls that one address may have at once."""

STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]
LIST_RUNS = BY_NAME[("Control", "ListRuns")]

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not OUTER, reason="this machine has no address but loopback ones"),
    pytest.mark.parametrize("wire", ["grpc", "http"]),
]


@dataclass
class Front:
    """A gateway behind a balancer with a log relay, like in `up --replicas`."""

    gateway: Gateway
    port: int

    def channel(self, host: str, wire: WireName) -> Channel:
        """Connect to the balancer at one of its addresses, and from the same address."""
        return CHANNELS[wire](f"{host}:{self.port}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(
    tmp_path_factory: pytest.TempPathFactory,
    nats_url: str,
    create_database: Callable[[], str],
) -> AsyncIterator[Front]:
    directory: Path = tmp_path_factory.mktemp("balancer")
    [port] = free_ports(1)
    relay_at, http_relay_at, relayed = (free_address() for _ in range(3))
    limits: dict[str, Any] = {"trusted_balancers": (BALANCER,), "max_calls_per_address": CALLS}
    database = create_database()
    async with running_stack(nats_url, database, control_to_others=True, **limits) as gateway:
        settings, relay = gateway.settings, LogRelay(relay_at, http_relay_at, gateways=relayed)
        own = Api("control", free_address(), [settings.control_api_address], None)
        balancer = Balancer(
            directory,
            [
                Api(
                    "http",
                    f"0.0.0.0:{port}",
                    [settings.http_api_address],
                    None,
                    None,
                    http_relay_at,
                ),
                Api("fleet", free_address(), [settings.fleet_api_address], None),
                *own.with_log_relay(relay_at, relayed),
            ],
        )
        try:
            await relay.start()
            await balancer.start()
            yield Front(gateway, port)
        finally:
            await balancer.stop()
            await relay.stop()


@asynccontextmanager
async def following(channel: Channel, run_id: int) -> AsyncIterator[None]:
    """Hold a stream of a log without lines."""
    request = control.StreamLogsRequest(run_id=run_id).SerializeToString()

    async def follow() -> None:
        async for _ in channel.stream(STREAM_LOGS, request, FORGED, 30):
            pass

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_clients_of_one_address_share_its_calls_and_others_are_served(
    front: Front, wire: WireName
) -> None:
    app = await front.gateway.server_app()
    stranger, here = front.channel(OUTER, wire), front.channel("127.0.0.1", wire)
    async with AsyncExitStack() as held:
        for _ in range(CALLS):
            await held.enter_async_context(following(stranger, app.run_id))
        await front.gateway.until_in_hand(CALLS)

        refused = await refusal(stranger.unary(LIST_RUNS, b"", FORGED, 20))

        assert refused.outcome is Outcome.UNAVAILABLE
        assert await here.unary(LIST_RUNS, b"", (), 20)
    await front.gateway.until_in_hand(0)
    assert await stranger.unary(LIST_RUNS, b"", FORGED, 20)
    await stranger.close()
    await here.close()


@dataclass
class _Forging:
    """Sends a header that clients must not send."""

    channel: Channel

    async def call(self, service: str, method: str, request: Any, metadata: Metadata = ()) -> Any:
        rpc = BY_NAME[(service, method)]
        body = await self.channel.unary(rpc, request.SerializeToString(), [*metadata, *FORGED], 20)
        return rpc.response.FromString(body)


async def test_a_node_has_its_own_address_whatever_it_says(front: Front, wire: WireName) -> None:
    for host in (OUTER, "127.0.0.1"):
        channel = front.channel(host, wire)
        node = SuperNode(_Forging(channel))
        await node.call("RegisterNode", fleet.RegisterNodeFleetRequest(public_key=node.public_key))
        await node.activate()

        row = await front.gateway.superlink.database.fetch_one(
            "SELECT address FROM node WHERE node_id = %(node_id)s", node_id=node.node_id
        )

        assert row == {"address": host}
        await channel.close()
