"""`--enable-supernode-auth`, set on any side: only keys that an account has registered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import FLEET
from harness.channels import WireName
from harness.clients import SuperNode
from tests.integration.gateways import Gateway, refusal, running_stack

SIDES: dict[str, dict[str, Any]] = {
    "gateway": {"enable_supernode_auth": True},
    "superlink": {"superlink": {"enable_supernode_auth": True}},
}
"""The side on which the operator sets the option, and the settings of the test's stack."""

CALLS = [one for one in FLEET if one.name not in ("RegisterNode", "ActivateNode")]


@pytest.fixture(params=SIDES)
async def strict_side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def strict_gateway(
    side: str, nats_url: str, pg_dsn: str, wire: WireName
) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire, **SIDES[side]) as gateway:
        yield gateway


async def refused_as(call: Awaitable[Any]) -> tuple[Outcome | None, int | None]:
    said = await refusal(call)
    return said.outcome, said.code


async def refused_by_every_call(node: SuperNode) -> bool:
    """Check the refusal of each call of a node that was let in before: it ends the process."""
    for method in CALLS:
        request: Any = method.request()
        getattr(request, "node", request).node_id = node.node_id
        said = await refusal(node.call(method.name, request))
        assert (said.outcome, said.text) == (Outcome.UNAUTHENTICATED, "Invalid node ID"), (
            method.name
        )
    return True


async def register(gateway: Gateway, node: SuperNode) -> int:
    """Register a key, like `flwr supernode register`."""
    request = control.RegisterNodeRequest(public_key=node.public_key)
    return int((await gateway.call("Control", "RegisterNode", request)).node_id)


async def heartbeat(node: SuperNode) -> bool:
    request = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    return bool((await node.call("SendNodeHeartbeat", request)).success)


async def test_a_key_that_nobody_has_registered_is_turned_away(
    strict_side: str, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with strict_gateway(strict_side, nats_url, pg_dsn, wire) as gateway:
        node = SuperNode(gateway)
        request = fleet.RegisterNodeFleetRequest(public_key=node.public_key)

        said = await refused_as(node.call("RegisterNode", request))
        assert said == (Outcome.FAILED_PRECONDITION, 2001)
        said = await refused_as(node.activate())
        assert said == (Outcome.FAILED_PRECONDITION, 2004)
        assert await refused_by_every_call(node)


async def test_a_registered_key_is_let_in(
    strict_side: str, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with strict_gateway(strict_side, nats_url, pg_dsn, wire) as gateway:
        node = SuperNode(gateway)
        node_id = await register(gateway, node)

        await node.activate()

        assert node.node_id == node_id
        assert await heartbeat(node)


async def test_a_node_that_has_registered_itself_is_shut_out_once_it_is_enabled(
    strict_side: str, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        node = await gateway.node()
        assert await heartbeat(node)

    async with strict_gateway(strict_side, nats_url, pg_dsn, wire) as node.gateway:
        assert await refused_by_every_call(node)
        said = await refused_as(node.activate())
        assert said == (Outcome.FAILED_PRECONDITION, 2004)


async def test_a_node_that_has_registered_itself_comes_in_once_its_key_is_registered(
    strict_side: str, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        node = await gateway.node()
        node_id = node.node_id

    async with strict_gateway(strict_side, nats_url, pg_dsn, wire) as node.gateway:
        assert await register(node.gateway, node) == node_id
        await node.activate()
        assert await heartbeat(node)


async def test_a_key_is_registered_once(nats_url: str, pg_dsn: str, wire: WireName) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        node = SuperNode(gateway)
        await register(gateway, node)

        said = await refused_as(register(gateway, node))

        assert said == (Outcome.FAILED_PRECONDITION, 23)
