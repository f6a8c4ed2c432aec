"""The APIs of the HTTP port for this machine and for others: both wires, and the balancer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.embedded.ports import free_ports
from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from harness.channels import CHANNELS, Channel, Refused, WireName
from harness.children import PATIENCE
from harness.environment import accepts_connections, outer_host
from harness.waiting import until
from tests.integration.gateways import (
    Gateway,
    free_address,
    refusal,
    running_gateway,
    running_stack,
)
from tests.integration.test_balancer import upstream

OUTER = outer_host()

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(OUTER is None, reason="this machine has no address but loopback ones"),
]

LIST_RUNS = BY_NAME[("Control", "ListRuns")]
STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]
GET_NODES = BY_NAME[("Runtime", "GetNodes")]
TAKE_TASKS = BY_NAME[("Runtime", "PullPendingTasks")]
REGISTER = BY_NAME[("Fleet", "RegisterNode")]
EVERY_WIRE: list[WireName] = ["grpc", "http"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(nats_url: str, create_database: Callable[[], str]) -> AsyncIterator[Gateway]:
    """A gateway with default settings that listens on all addresses."""
    [port] = free_ports(1)
    database = create_database()
    async with running_stack(nats_url, database, http_api_address=f"0.0.0.0:{port}") as one:
        yield one


@asynccontextmanager
async def channel_to(gateway: Gateway, host: str | None, wire: WireName) -> AsyncIterator[Channel]:
    """Connect to the HTTP port at one of its addresses."""
    port = gateway.settings.http_api_address.rpartition(":")[2]
    channel = CHANNELS[wire](f"{host}:{port}")
    try:
        yield channel
    finally:
        await channel.close()


def is_closed(refused: Refused, remedy: str) -> bool:
    # A stock client repeats a call with neither outcome.
    expected = (Outcome.FAILED_PRECONDITION, Outcome.PERMISSION_DENIED)
    return refused.outcome in expected and remedy in refused.text


@pytest.mark.parametrize("wire", EVERY_WIRE)
async def test_other_machines_get_what_is_for_supernodes_alone(
    gateway: Gateway, wire: WireName
) -> None:
    async with channel_to(gateway, OUTER, wire) as channel:
        listing = await refusal(channel.unary(LIST_RUNS, b""))
        following = await refusal(anext(channel.stream(STREAM_LOGS, b"")))
        taking = await refusal(channel.unary(TAKE_TASKS, b""))
        working = await refusal(channel.unary(GET_NODES, b"", [("flwr-task-token", "guess")]))
        registering = await refusal(channel.unary(REGISTER, b""))

    assert is_closed(listing, "--http-control")
    assert is_closed(following, "--control-api-address")
    assert is_closed(taking, "--insecure-appio")
    assert is_closed(working, "--superexec-auth-secret-file")
    assert registering.outcome is Outcome.UNAUTHENTICATED
    assert "metadata" in registering.text


@pytest.mark.parametrize("wire", EVERY_WIRE)
async def test_this_machine_gets_everything(gateway: Gateway, wire: WireName) -> None:
    async with channel_to(gateway, "127.0.0.1", wire) as channel:
        control.ListRunsResponse.FromString(await channel.unary(LIST_RUNS, b""))
        waiting = channel.unary(TAKE_TASKS, b"", timeout=0.5)
        with pytest.raises(TimeoutError):  # The call is held until there is a task: it was let in.
            await waiting


@pytest.mark.parametrize("wire", EVERY_WIRE)
async def test_a_proxy_on_this_machine_that_names_itself_opens_nothing(
    gateway: Gateway, wire: WireName
) -> None:
    passed_on = [("x-forwarded-for", "203.0.113.7")]
    async with channel_to(gateway, "127.0.0.1", wire) as channel:
        listing = await refusal(channel.unary(LIST_RUNS, b"", passed_on))
        taking = await refusal(channel.unary(TAKE_TASKS, b"", passed_on))

    assert is_closed(listing, "--http-control")
    assert is_closed(taking, "--insecure-appio")


@pytest.mark.parametrize("wire", EVERY_WIRE)
async def test_control_has_a_port_of_its_own_over_both_wires(
    gateway: Gateway, wire: WireName
) -> None:
    channel = CHANNELS[wire](gateway.settings.control_api_address)
    try:
        control.ListRunsResponse.FromString(await channel.unary(LIST_RUNS, b""))
        with pytest.raises(Refused) as other_api:
            await channel.unary(REGISTER, fleet.RegisterNodeFleetRequest().SerializeToString())
    finally:
        await channel.close()

    assert other_api.value.outcome in (Outcome.UNIMPLEMENTED, Outcome.NOT_FOUND)


@pytest.mark.parametrize("wire", EVERY_WIRE)
async def test_who_asks_for_it_serves_all_of_it_to_others(
    gateway: Gateway, nats_url: str, wire: WireName
) -> None:
    [port] = free_ports(1)
    address = f"0.0.0.0:{port}"
    async with (
        running_gateway(
            gateway.superlink,
            nats_url,
            http_api_address=address,
            control_to_others=True,
            runtime_to_others=True,
        ) as open_one,
        channel_to(open_one, OUTER, wire) as channel,
    ):
        control.ListRunsResponse.FromString(await channel.unary(LIST_RUNS, b""))
        working = await refusal(channel.unary(GET_NODES, b"", [("flwr-task-token", "guess")]))

    assert working.outcome is Outcome.UNAUTHENTICATED


async def test_the_balancer_keeps_from_others_what_gateways_would(tmp_path: Path) -> None:
    [http, fleet_port] = free_ports(2)
    grpc_address, http_address = free_address(), free_address()
    stand_in = upstream(tmp_path, grpc_address, http_address)
    balancer = Balancer(
        tmp_path / "balancer",
        [
            Api("http", f"0.0.0.0:{http}", [http_address], None, kept=["control", "serverappio"]),
            Api("control", free_address(), [grpc_address], None),
            Api("serverappio", free_address(), [grpc_address], None),
            Api("fleet", f"0.0.0.0:{fleet_port}", [grpc_address], None),
        ],
    )
    try:
        await stand_in.start()
        await until(lambda: accepts_connections(http_address))
        await balancer.start()
        for wire in EVERY_WIRE:
            outside, inside = CHANNELS[wire](f"{OUTER}:{http}"), CHANNELS[wire](f"127.0.0.1:{http}")
            for method in (LIST_RUNS, GET_NODES, REGISTER):
                assert await inside.unary(method, b"who", timeout=PATIENCE)
            assert await outside.unary(REGISTER, b"who", timeout=PATIENCE)
            listing = await refusal(outside.unary(LIST_RUNS, b"", timeout=PATIENCE))
            taking = await refusal(outside.unary(TAKE_TASKS, b"", timeout=PATIENCE))
            assert is_closed(listing, "--http-control")
            assert is_closed(taking, "--insecure-appio")
            await outside.close()
            await inside.close()
        async with httpx.AsyncClient() as client:
            # Gateways would decode this path to that of a method.
            written = LIST_RUNS.http_path.replace("c", "%63", 1)
            answer = await client.post(f"http://{OUTER}:{http}{written}", content=b"who")
            assert answer.status_code == 404
    finally:
        await balancer.stop()
        await stand_in.stop()
