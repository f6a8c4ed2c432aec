"""A new key for a SuperNode: the node stays the same, and the old key is invalid at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats_cli.node import node as node_command
from harness.channels import WireName
from harness.clients import SuperNode
from tests.integration.gateways import Gateway, refusal, running_stack


@pytest.fixture
async def gateway(nats_url: str, pg_dsn: str, wire: WireName) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


async def rotate(node_id: int, key: bytes, nats_url: str, folder: Path) -> tuple[int, str]:
    file = folder / "key.pub"
    file.write_bytes(key)
    command = ["rotate-key", str(node_id), str(file), "--nats", nats_url]
    result = await asyncio.to_thread(CliRunner().invoke, node_command, command)
    return result.exit_code, result.output


async def test_a_node_keeps_its_id_and_the_old_key_is_refused_at_once(
    gateway: Gateway, nats_url: str, tmp_path: Path
) -> None:
    node, other, new = await gateway.node(), await gateway.node(), SuperNode(gateway)
    held = asyncio.create_task(node.pull())
    await gateway.until_in_hand(1)

    code, said = await rotate(node.node_id, new.public_key, nats_url, tmp_path)
    assert code == 0, said

    # The held call of the process with the old key ends as well.
    refused = await refusal(held)
    assert refused.outcome is Outcome.UNAUTHENTICATED
    assert (await refusal(node.pull())).outcome is Outcome.UNAUTHENTICATED
    await new.activate()
    assert new.node_id == node.node_id
    listed = await gateway.call("Control", "ListNodes", control.ListNodesRequest())
    statuses = {one.node_id: one.status for one in listed.nodes_info}
    assert statuses == {node.node_id: "online", other.node_id: "online"}


async def test_a_key_that_a_node_has_and_a_node_that_is_not_there_are_refused(
    gateway: Gateway, nats_url: str, tmp_path: Path
) -> None:
    node, other = await gateway.node(), await gateway.node()

    taken = await rotate(node.node_id, other.public_key, nats_url, tmp_path)
    unknown = await rotate(5, SuperNode(gateway).public_key, nats_url, tmp_path)
    garbage = await rotate(node.node_id, b"no key", nats_url, tmp_path)

    assert [code for code, _ in (taken, unknown, garbage)] == [1, 1, 1]
    assert "has this key already" in taken[1]
    assert "no SuperNode 5" in unknown[1]
    assert "no public key" in garbage[1]
