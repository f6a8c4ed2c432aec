"""Calls of an agent's process through a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from harness.channels import WireName
from harness.clients import ServerApp
from harness.fabs import PROJECT, make_fab
from harness.messages import inflate, instruction, reply
from tests.integration.gateways import Gateway, running_stack

AGENT = PROJECT.replace('serverapp = "app', 'agentapp = "app')


@pytest.fixture
async def gateway(
    connection: Connection, nats_url: str, pg_dsn: str, wire: WireName
) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


async def agent(gateway: Gateway, prompt: str) -> ServerApp:
    """Start an agent and take its task, like SuperExec and `flwr-agentapp`."""
    request = control.StartRunRequest(fab=common.Fab(content=make_fab(AGENT)), user_prompt=prompt)
    run = await gateway.call("Control", "StartRun", request)
    wanted = runtime.AcquireTaskRequest(supported_task_types=["flwr-agentapp"])
    acquired = await gateway.call("Runtime", "AcquireTask", wanted)
    assert acquired.task.run_id == run.run_id
    app = ServerApp(gateway, run.run_id, acquired.task.task_id, acquired.token)
    await app.call("PullTaskInput", runtime.PullTaskInputRequest())
    return app


async def test_an_agent_reads_what_it_was_asked(gateway: Gateway) -> None:
    app = await agent(gateway, "What is new?")

    answer = await app.call("PullMessages", runtime.PullAppMessagesRequest())

    [tree], contents = answer.message_object_trees, {}
    node: common.ObjectTree | None = common.ObjectTree.FromString(tree)
    while node is not None:
        contents[node.object_id] = (await app.pull_object(node.object_id)).object_content
        node = node.children[0] if node.children else None
    [message] = answer.messages_list
    await app.confirm(message.metadata.message_id)
    read = inflate(message.metadata.message_id, contents)
    assert read.content["agent"]["text"] == "What is new?"


async def test_an_agent_exchanges_messages_with_nodes(gateway: Gateway) -> None:
    app, node = await agent(gateway, "Ask the nodes."), await gateway.node()
    question = instruction(app.run_id, node.node_id)

    await app.send(question)
    [message, _] = await node.pull()
    await node.confirm(app.run_id, message.metadata.message_id)
    await node.send(reply(question))

    [answer] = await app.pull(question.message_id)
    assert answer.metadata.reply_to_message_id == question.message_id


async def test_a_serverapp_that_asks_for_no_replies_gets_none(gateway: Gateway) -> None:
    app = await gateway.server_app()

    assert await app.pull() == []
