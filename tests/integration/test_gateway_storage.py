"""The limits of stored bytes for a reply, a node and a run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

from flower_nats.broker.connection import Connection
from flower_nats.model.errors import Outcome
from flower_nats.settings import StorageLimits
from flower_nats_gateway.delivery import stored_bytes
from harness.channels import WireName
from harness.messages import instruction, reply
from tests.integration.gateways import Gateway, refusal, running_stack

MIB = 1024 * 1024


def model(mib: float) -> RecordDict:
    values = np.random.default_rng().integers(0, 256, int(mib * MIB), dtype=np.uint8)
    return RecordDict({"model": ArrayRecord([values])})


@pytest.fixture
async def gateway(
    connection: Connection,
    nats_url: str,
    pg_dsn: str,
    wire: WireName,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(stored_bytes, "_LOOK_EVERY", 0.0)
    limits = StorageLimits(reply=3, node=5, run=8)
    async with running_stack(nats_url, pg_dsn, wire, storage_limits=limits) as gateway:
        yield gateway


async def test_a_reply_beyond_the_limit_ends_as_an_error_that_says_so(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.pull()
    await node.confirm(app.run_id, question.message_id)
    answer = reply(question, model(4))
    session = await node.push(answer)

    stored = [
        await node.push_object(app.run_id, session.session_id, one, answer.objects[one])
        for one in session.objects_to_push
    ]

    assert not all(stored)
    [error] = await app.pull(question.message_id)
    assert "3 MiB" in error.error.reason and "--max-reply-mib" in error.error.reason
    # The next instruction is served like any other.
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.send(reply(question, model(1)))
    assert (await app.pull(question.message_id))[0].HasField("content")


async def test_what_is_over_is_forgotten_also_where_no_limit_is_met(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_bytes, "_LOOK_AFTER", 4)
    forgotten: list[tuple[int, str]] = []
    forget = stored_bytes.StoredBytes._forget

    def note(self: stored_bytes.StoredBytes, key: tuple[int, str]) -> None:
        forgotten.append(key)
        forget(self, key)

    monkeypatch.setattr(stored_bytes.StoredBytes, "_forget", note)
    node, app = await gateway.node(), await gateway.server_app()
    for _ in range(4):
        question = instruction(app.run_id, node.node_id)
        await app.send(question)
        answer = reply(question)
        await node.send(answer)
        await app.pull(question.message_id)
        await app.confirm(answer.message_id)
    assert len(forgotten) >= 4


async def test_a_node_may_go_on_for_ever_with_replies_that_are_confirmed(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    for _ in range(5):
        question = instruction(app.run_id, node.node_id)
        await app.send(question)
        answer = reply(question, model(2.5))
        await node.send(answer)
        [got] = await app.pull(question.message_id)
        assert got.metadata.message_id == answer.message_id
        await app.confirm(answer.message_id)


async def test_a_node_and_a_run_have_limits_of_their_own(gateway: Gateway) -> None:
    one, two, app = await gateway.node(), await gateway.node(), await gateway.server_app()
    first, second, third, fourth = (
        instruction(app.run_id, node.node_id) for node in (one, one, two, two)
    )
    await app.send(first, second, third, fourth)
    await one.send(reply(first, model(2.5)))
    with pytest.raises(AssertionError):
        await one.send(reply(second, model(2.5)))
    [error] = await app.pull(second.message_id)
    assert "--max-node-mib" in error.error.reason

    await two.send(reply(third, model(2.5)))
    large = instruction(app.run_id, one.node_id, model(4))
    said = await refusal(app.send(large))
    assert said.outcome is Outcome.RESOURCE_EXHAUSTED
    assert "--max-run-mib" in said.text


async def test_sessions_without_objects_count_as_well(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    opened = 0
    while (await node.push(reply(question, model(0.01)))).session_id:
        opened += 1
        assert opened < 200, "there is no end to it"
    assert opened > 10
