"""Messages of SuperNodes and ServerApps through a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import psycopg
import pytest
from flwr.app import ArrayRecord, RecordDict

from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from flower_nats.model.errors import Outcome
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats_gateway.api import runtime as runtime_api
from harness.channels import WireName
from harness.children import PATIENCE
from harness.fabs import make_fab
from harness.messages import inflate, instruction, reply
from tests.integration.gateways import (
    BEFORE_THE_HOLD_ENDS,
    Gateway,
    refusal,
    running_gateway,
    running_stack,
)


@pytest.fixture
async def gateway(
    connection: Connection, nats_url: str, pg_dsn: str, wire: WireName
) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


def model(value: float, size: int = 100) -> RecordDict:
    return RecordDict({"model": ArrayRecord([np.full(size, value)])})


async def test_a_message_and_its_reply_arrive_as_they_were_sent(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id, model(1.5))

    assert await app.send(question) == [question.message_id]
    message, tree = await node.pull()
    assert message.metadata.message_id == question.message_id
    root = common.ObjectTree.FromString(tree)
    contents = {}
    for object_id in question.objects:
        found = await node.pull_object(app.run_id, object_id)
        assert found.object_found
        assert found.object_available
        contents[object_id] = found.object_content
    received = inflate(root.object_id, contents)
    assert received.content["model"].to_numpy_ndarrays()[0][0] == 1.5
    await node.confirm(app.run_id, question.message_id)

    answer = reply(question, model(2.5))
    await node.send(answer)
    [got] = await app.pull(question.message_id)
    assert got.metadata.message_id == answer.message_id
    assert got.metadata.reply_to_message_id == question.message_id
    contents = {one: (await app.pull_object(one)).object_content for one in answer.objects}
    assert inflate(answer.message_id, contents).content["model"].to_numpy_ndarrays()[0][0] == 2.5
    await app.confirm(answer.message_id)


async def test_pulling_again_before_the_confirmation_gives_the_same(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)

    assert await node.pull() == await node.pull()
    await node.confirm(app.run_id, question.message_id)
    await node.send(reply(question))
    assert await app.pull(question.message_id) == await app.pull(question.message_id)


async def test_both_pulls_are_held_until_there_is_something(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    waiting_node = asyncio.create_task(node.pull())
    await asyncio.sleep(0.2)
    assert not waiting_node.done()

    await app.send(question)
    async with asyncio.timeout(BEFORE_THE_HOLD_ENDS):
        await waiting_node
    waiting_app = asyncio.create_task(app.pull(question.message_id))
    await asyncio.sleep(0.2)
    assert not waiting_app.done()

    await node.send(reply(question))
    async with asyncio.timeout(BEFORE_THE_HOLD_ENDS):
        assert len(await waiting_app) == 1


async def test_replies_wait_for_one_another_but_not_for_ever(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_api, "SETTLE", 0.5)
    quick, slow, app = await gateway.node(), await gateway.node(), await gateway.server_app()
    one, two = instruction(app.run_id, quick.node_id), instruction(app.run_id, slow.node_id)
    ids = await app.send(one, two)
    pulling = asyncio.create_task(app.pull(*ids))
    await quick.send(reply(one))
    await asyncio.sleep(0.1)
    await slow.send(reply(two))
    assert len(await pulling) == 2

    three, four = instruction(app.run_id, quick.node_id), instruction(app.run_id, slow.node_id)
    ids = await app.send(three, four)
    await quick.send(reply(three))
    async with asyncio.timeout(PATIENCE):
        assert len(await app.pull(*ids)) == 1


async def test_nothing_is_visible_before_it_is_whole(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id, model(1.0))
    pushed = await app.push(question)
    waiting = asyncio.create_task(node.pull())
    *first, last = pushed.objects_to_push
    for object_id in first:
        assert await app.push_object(pushed.session_id, object_id, question.objects[object_id])
    early = asyncio.create_task(app.pull_object(last))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert not early.done()

    assert await app.push_object(pushed.session_id, last, question.objects[last])

    assert (await waiting)[0].metadata.message_id == question.message_id
    assert (await early).object_content == question.objects[last]
    # A repeated call changes nothing.
    assert await app.push_object(pushed.session_id, last, question.objects[last])


async def test_two_gateways_share_one_push_session(gateway: Gateway, nats_url: str) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    async with running_gateway(gateway.superlink, nats_url, gateway.wire) as other:
        question = instruction(app.run_id, node.node_id, model(3.0))
        pushed = await app.push(question)
        for number, object_id in enumerate(pushed.objects_to_push):
            app.gateway = (gateway, other)[number % 2]
            content = question.objects[object_id]
            assert await app.push_object(pushed.session_id, object_id, content)
        node.gateway = other
        async with asyncio.timeout(PATIENCE):
            assert (await node.pull())[0].metadata.message_id == question.message_id


async def test_a_node_that_starts_anew_with_its_key_gets_its_instruction_again(
    gateway: Gateway,
) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.pull()
    await node.confirm(app.run_id, question.message_id)

    await node.activate()

    assert (await node.pull())[0].metadata.message_id == question.message_id


async def test_a_second_reply_is_refused_quietly(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    first, second = reply(question), reply(question)
    await node.send(first)

    answer = await node.push(second)
    assert list(answer.objects_to_push) == []
    [got] = await app.pull(question.message_id)
    assert got.metadata.message_id == first.message_id
    await app.confirm(first.message_id)
    assert list((await node.push(second)).objects_to_push) == []


async def test_a_broadcast_is_uploaded_once(gateway: Gateway) -> None:
    nodes = [await gateway.node() for _ in range(4)]
    app = await gateway.server_app()
    content = model(1.0, 1000)
    parcels = [instruction(app.run_id, node.node_id, content) for node in nodes]

    pushed = await app.push(*parcels)

    assert len(pushed.objects_to_push) == len(set(pushed.objects_to_push))
    assert len(pushed.objects_to_push) == len(parcels[0].objects) + len(parcels) - 1


async def test_an_unknown_message_gets_an_error_reply(gateway: Gateway) -> None:
    app = await gateway.server_app()
    unknown = "ab" * 32
    [got] = await app.pull(unknown)
    assert got.error.code == 3
    assert got.metadata.reply_to_message_id == unknown
    content = (await app.pull_object(got.metadata.message_id)).object_content
    assert inflate(got.metadata.message_id, {got.metadata.message_id: content}).has_error()


async def test_a_node_that_leaves_gives_an_error_reply(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=node.node_id))
    async with asyncio.timeout(PATIENCE):
        [got] = await app.pull(question.message_id)
    assert got.error.code == 5


async def test_a_node_that_hands_over_leaves_its_instruction_to_the_other_process(
    gateway: Gateway,
) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    await node.activate()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.pull()
    await node.confirm(app.run_id, question.message_id)

    await node.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=node.node_id))

    again, _ = await node.pull()
    assert again.metadata.message_id == question.message_id
    await node.send(reply(question))
    [got] = await app.pull(question.message_id)
    assert not got.HasField("error")


async def test_stopping_a_run_ends_its_held_calls_and_refuses_late_replies(
    gateway: Gateway,
) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    pulling = asyncio.create_task(app.pull(question.message_id))
    await asyncio.sleep(0.2)

    await gateway.call("Control", "StopRun", control.StopRunRequest(run_id=app.run_id))

    ended = await refusal(asyncio.wait_for(pulling, BEFORE_THE_HOLD_ENDS))
    assert ended.outcome is Outcome.UNAUTHENTICATED
    late = await refusal(node.push(reply(question)))
    assert late.outcome is Outcome.PERMISSION_DENIED


async def test_stopping_a_run_leaves_a_node_that_receives_from_it_in_step(
    gateway: Gateway,
) -> None:
    """After other answers a stock SuperNode stays one reply behind, or keeps its ClientApp."""
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.pull()

    await gateway.call("Control", "StopRun", control.StopRunRequest(run_id=app.run_id))

    late = await refusal(node.pull_object(app.run_id, question.message_id))
    assert late.outcome is Outcome.FAILED_PRECONDITION
    assert f"Run {app.run_id} is finished. Stopped by user." in late.text
    await node.confirm(app.run_id, question.message_id)


async def test_a_serverapp_whose_run_was_stopped_unheard_is_told_to_end(
    gateway: Gateway, pg_dsn: str, connection: Connection
) -> None:
    """The answer is not that its messages are unknown. A stock ServerApp may raise that error, and
    hangs if it is told to end while it ends."""
    node, app = await gateway.node(), await gateway.server_app()
    question, next_one = (instruction(app.run_id, node.node_id, model(value)) for value in (1, 2))
    await app.send(question)
    pushed = await app.push(next_one)

    async with await psycopg.AsyncConnection.connect(pg_dsn) as database:
        await database.execute(
            "UPDATE task SET status = 'finished', sub_status = 'stopped', finished_at = now(), "
            "token_hash = NULL, active_until = NULL"
        )
    await Mailbox(connection).end_run(app.run_id)

    for call in (
        app.pull(question.message_id),
        app.pull_object("ab" * 32),
        app.push_object(pushed.session_id, "ab" * 32, b"an object that nobody wants"),
    ):
        assert (await refusal(call)).outcome is Outcome.UNAUTHENTICATED


async def test_log_lines_are_streamed_as_they_come_and_the_stream_ends_with_the_run(
    gateway: Gateway,
) -> None:
    app = await gateway.server_app()
    lines: list[str] = []

    async def follow() -> None:
        async for answer in gateway.follow(app.run_id):
            lines.append(answer.log_output)

    following = asyncio.create_task(follow())
    for number in range(3):
        await app.call("PushLogs", runtime.PushLogsRequest(logs=[f"line {number}\n"]))
        async with asyncio.timeout(BEFORE_THE_HOLD_ENDS):
            while len(lines) <= number:
                await asyncio.sleep(0.02)
        assert len(lines) == number + 1
    await app.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="completed"))
    async with asyncio.timeout(BEFORE_THE_HOLD_ENDS):
        await following
    assert lines == ["line 0\n", "line 1\n", "line 2\n"]


async def test_a_stream_goes_on_from_where_it_was(gateway: Gateway) -> None:
    app = await gateway.server_app()
    await app.call("PushLogs", runtime.PushLogsRequest(logs=["one\n"]))

    async def first(after: float) -> control.StreamLogsResponse:
        async with aclosing(gateway.follow(app.run_id, after)) as answers:
            return await anext(answers)

    one = await first(0.0)
    await app.call("PushLogs", runtime.PushLogsRequest(logs=["two\n"]))
    assert (await first(one.latest_timestamp)).log_output == "two\n"


async def test_a_draining_gateway_ends_held_calls_with_an_empty_answer(
    gateway: Gateway, nats_url: str
) -> None:
    node = await gateway.node()
    async with running_gateway(gateway.superlink, nats_url, gateway.wire) as leaving:
        node.gateway = leaving
        waiting = asyncio.create_task(node.pull())
        await leaving.until_in_hand(1)
        leaving.stop.set()
        async with asyncio.timeout(BEFORE_THE_HOLD_ENDS):
            assert await waiting is None


async def test_no_node_is_refused_because_its_gateway_has_not_heard_that_the_run_runs(
    gateway: Gateway, pg_dsn: str
) -> None:
    """A refused node would drop its message for good, and hints may be lost."""
    node = await gateway.node()
    start = control.StartRunRequest(fab=common.Fab(content=make_fab()))
    run = await gateway.call("Control", "StartRun", start)
    assert "is pending" in (await refusal(node.pull_object(run.run_id, "ab" * 32))).text

    async with await psycopg.AsyncConnection.connect(pg_dsn) as database:
        await database.execute(
            "UPDATE task SET status = 'running', starting_at = now(), running_at = now(), "
            "active_until = now() + interval '1 minute'"
        )

    await node.pull_object(run.run_id, "ab" * 32)
