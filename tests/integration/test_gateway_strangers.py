"""Nodes and apps cannot read others' objects, nor find out whether these objects exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from flwr.app import MetricRecord, RecordDict

from flower_nats.broker.connection import Connection
from harness.channels import WireName
from harness.clients import ServerApp, SuperNode
from harness.messages import Parcel, instruction, reply
from tests.integration.gateways import Gateway, running_pair


@pytest.fixture
async def gateways(
    connection: Connection, nats_url: str, pg_dsn: str, wire: WireName
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with running_pair(nats_url, pg_dsn, wire) as pair:
        yield pair


def metrics(value: float) -> RecordDict:
    return RecordDict({"metrics": MetricRecord({"accuracy": value})})


async def found(node: SuperNode | ServerApp, run_id: int, one: Parcel) -> set[bool]:
    """Return whether the objects of a message are found."""
    if isinstance(node, ServerApp):
        answers = [await node.pull_object(object_id) for object_id in one.objects]
    else:
        answers = [await node.pull_object(run_id, object_id) for object_id in one.objects]
    return {answer.object_found and answer.object_available for answer in answers}


async def test_a_node_is_given_the_objects_of_its_own_instructions_alone(
    gateways: tuple[Gateway, Gateway],
) -> None:
    gateway, other_gateway = gateways
    one, other, app = await gateway.node(), await gateway.node(), await gateway.server_app()
    to_one = instruction(app.run_id, one.node_id, metrics(0.25))
    to_other = instruction(app.run_id, other.node_id, metrics(0.75))
    await app.send(to_one, to_other)

    assert await found(one, app.run_id, to_one) == {True}
    assert await found(one, app.run_id, to_other) == {False}
    await one.pull()
    assert await found(one, app.run_id, to_other) == {False}

    # The node finds them at any gateway, repeatedly, until its reply is complete.
    one.gateway = other_gateway
    await one.confirm(app.run_id, to_one.message_id)
    assert await found(one, app.run_id, to_one) == {True}
    assert await found(one, app.run_id, to_other) == {False}

    # Only the ServerApp finds the objects of replies.
    answer = reply(to_one, metrics(0.5))
    await one.send(answer)
    assert await found(other, app.run_id, answer) == {False}
    assert await found(app, app.run_id, answer) == {True}


async def test_a_node_with_two_instructions_is_given_the_objects_of_both(
    gateways: tuple[Gateway, Gateway],
) -> None:
    gateway, _ = gateways
    node, app = await gateway.node(), await gateway.server_app()
    first = instruction(app.run_id, node.node_id, metrics(0.25))
    second = instruction(app.run_id, node.node_id, metrics(0.75))
    await app.send(first, second)
    for question in (first, second, first):
        assert await found(node, app.run_id, question) == {True}


async def test_a_server_app_is_given_nothing_of_another_run(
    gateways: tuple[Gateway, Gateway],
) -> None:
    gateway, _ = gateways
    node, app, other = (
        await gateway.node(),
        await gateway.server_app(),
        await gateway.server_app(),
    )
    question = instruction(app.run_id, node.node_id, metrics(0.25))
    await app.send(question)
    assert await found(app, app.run_id, question) == {True}
    assert await found(other, app.run_id, question) == {False}


async def test_whether_an_object_is_stored_is_not_said_to_a_node(
    gateways: tuple[Gateway, Gateway],
) -> None:
    gateway, _ = gateways
    victim, spy, app = await gateway.node(), await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, victim.node_id, metrics(0.25))
    await app.send(question)
    answer = reply(question, metrics(0.5))
    session_id = (await victim.push(answer)).session_id
    (stored, content), (open_one, _) = list(answer.objects.items())[:2]
    assert await victim.push_object(app.run_id, session_id, stored, content)

    guesses = (stored, open_one)
    for session in ("", "1" * 32, session_id):
        said = [await spy.push_object(app.run_id, session, guess, b"whatever") for guess in guesses]
        assert len(set(said)) == 1, f"{session!r} tells them apart: {said}"

    # The spy has put nothing into the victim's reply.
    pulling = asyncio.create_task(app.pull(question.message_id))
    await victim.send(answer)
    assert [one.metadata.message_id for one in await pulling] == [answer.message_id]


async def test_an_object_that_comes_again_after_all_is_over_is_no_failure(
    gateways: tuple[Gateway, Gateway],
) -> None:
    one_gateway, other_gateway = gateways
    node, app = await one_gateway.node(), await one_gateway.server_app()
    question = instruction(app.run_id, node.node_id, metrics(0.25))
    await app.send(question)
    await node.confirm(app.run_id, question.message_id)
    answer = reply(question, metrics(0.5))
    session_id = (await node.push(answer)).session_id
    await node.send(answer)
    await app.pull(question.message_id)
    await app.confirm(answer.message_id)
    await app.send(instruction(app.run_id, node.node_id, metrics(0.75)))

    object_id, content = next(iter(answer.objects.items()))
    node.gateway = other_gateway
    assert await node.push_object(app.run_id, session_id, object_id, content)
