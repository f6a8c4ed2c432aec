"""`flower-nats status --run`: the messages of each node, and the nodes that the run waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

from flower_nats.broker.connection import Connection
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats_cli.run_status import run_lines
from harness.children import PATIENCE
from harness.messages import instruction, reply
from tests.integration.gateways import Gateway, running_stack


@pytest.fixture
async def gateway(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn) as gateway:
        yield gateway


async def report(gateway: Gateway, run_id: int) -> dict[str, Any]:
    return await gateway.superlink.command("RunReport", run_id=run_id)


async def test_each_node_of_an_exchange_is_shown_with_how_far_its_message_has_come(
    gateway: Gateway,
) -> None:
    nodes = [await gateway.node() for _ in range(5)]
    idle, working, answering, done, collected = nodes
    app = await gateway.server_app()
    questions = [instruction(app.run_id, node.node_id) for node in nodes]
    await app.send(*questions)
    for node, question in zip(nodes[1:], questions[1:], strict=True):
        await node.pull()
        await node.confirm(app.run_id, question.message_id)
    await answering.push(reply(questions[2], RecordDict({"a": ArrayRecord([np.ones(3)])})))
    await done.send(reply(questions[3]))
    answer = reply(questions[4])
    await collected.send(answer)
    await app.confirm(answer.message_id)

    found = await report(gateway, app.run_id)

    [exchange] = found["exchanges"]
    assert exchange["message_type"] == "train"
    assert {one["node_id"]: one["step"] for one in exchange["messages"]} == {
        str(idle.node_id): "put out",
        str(working.node_id): "taken",
        str(answering.node_id): "answering",
        str(done.node_id): "answered",
        str(collected.node_id): "collected",
    }
    assert {one["node_status"] for one in exchange["messages"]} == {"online"}
    text = "\n".join(run_lines(found))
    assert "train, sent 0 s ago: waits for 3 of 5 nodes (1 put out, 1 taken," in text


async def test_a_message_whose_objects_are_not_all_there_arrives(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    await app.push(instruction(app.run_id, node.node_id))

    [exchange] = (await report(gateway, app.run_id))["exchanges"]

    [message] = exchange["messages"]
    assert message["step"] == "arriving"


async def test_a_run_without_messages_says_so(gateway: Gateway) -> None:
    app = await gateway.server_app()

    text = "\n".join(run_lines(await report(gateway, app.run_id)))

    assert f"Run {app.run_id} (" in text
    assert "is running, for " in text
    assert "No message is under way" in text


async def test_the_errors_of_nodes_are_shown(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    await app.send(instruction(app.run_id, node.node_id))
    await node.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=node.node_id))

    async with asyncio.timeout(PATIENCE):
        while not (found := await report(gateway, app.run_id))["errors"]:
            await asyncio.sleep(0.05)

    [error] = found["errors"]
    assert error["named"] == [{"node_id": str(node.node_id), "name": ""}]
    text = "\n".join(run_lines(found))
    assert f"Errors of nodes, the newest first:\n  once, of {node.node_id}, " in text
    assert error["reason"].splitlines()[0] in text
