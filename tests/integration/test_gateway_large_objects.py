"""A gateway forwards objects that are too large for its memory piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, RecordDict

from flower_nats.broker import chunks, subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.objects import Objects
from flower_nats.model.errors import Outcome
from flower_nats_gateway.calls.wire import HTTP
from flower_nats_gateway.delivery import objects
from flower_nats_gateway.transports.http import app, body
from harness.channels import Refused, WireName
from harness.children import PATIENCE
from harness.messages import Parcel, instruction, reply
from tests.integration.gateways import Gateway, running_stack

_MIB = 1024 * 1024


@pytest.fixture
async def gateway(
    connection: Connection,
    nats_url: str,
    pg_dsn: str,
    wire: WireName,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(objects, "LARGE", _MIB)
    monkeypatch.setattr(body, "_JOINED", _MIB)
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


def content(seed: int) -> RecordDict:
    data = bytes([seed]) * _MIB
    return RecordDict({"large": ConfigRecord({"bytes": data * 3 + data[:1000]})})


def largest(one: Parcel) -> tuple[str, bytes]:
    return max(one.objects.items(), key=lambda pair: len(pair[1]))


async def test_large_objects_go_to_several_nodes_and_come_back(gateway: Gateway) -> None:
    nodes, app = [await gateway.node() for _ in range(3)], await gateway.server_app()
    questions = [instruction(app.run_id, node.node_id, content(1)) for node in nodes]
    await app.send(*questions)
    pulls = [
        node.pull_object(app.run_id, largest(question)[0])
        for node, question in zip(nodes, questions, strict=True)
        for _ in range(2)
    ]
    for pulled in await asyncio.gather(*pulls):
        assert pulled.object_content == largest(questions[0])[1]
    answers = [reply(question, content(2)) for question in questions]
    await asyncio.gather(*(node.send(one) for node, one in zip(nodes, answers, strict=True)))
    for answer in answers:
        pulled = await app.pull_object(largest(answer)[0])
        assert pulled.object_content == largest(answer)[1]


async def test_half_of_a_large_object_is_nobodys_answer(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id, content(3))
    await app.send(question)
    object_id, _ = largest(question)
    broker = gateway.superlink.connection
    subject = subjects.object_chunk(app.run_id, object_id, 2)
    await broker.purge(subjects.OBJECTS_STREAM, subject)

    with pytest.raises((Refused, OSError, EOFError, asyncio.IncompleteReadError)) as caught:
        await node.pull_object(app.run_id, object_id)

    if isinstance(caught.value, Refused):
        assert caught.value.outcome is Outcome.UNAVAILABLE
    await chunks.store(broker, lambda _: subject, [largest(question)[1][2 * _MIB : 3 * _MIB]])
    assert (await node.pull_object(app.run_id, object_id)).object_available


async def test_a_broker_that_is_slower_than_a_client_has_patience_gets_an_object_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, serverapp = await gateway.node(), await gateway.server_app()
    question = instruction(serverapp.run_id, node.node_id)
    await serverapp.send(question)
    answer = reply(question, content(4))
    session_id = (await node.push(answer)).session_id
    large = largest(answer)[0]
    store, stored = Objects.store, list[str]()

    async def slowly(self: Objects, run_id: int, object_id: str, data: bytes | memoryview) -> None:
        stored.append(object_id)
        await asyncio.sleep(0.5 if object_id == large else 0.0)
        await store(self, run_id, object_id, data)

    monkeypatch.setattr(Objects, "store", slowly)
    monkeypatch.setattr(app, "HTTP", replace(HTTP, answer_within=0.2))
    for object_id, data in answer.objects.items():
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(Refused):
                    assert await node.push_object(serverapp.run_id, session_id, object_id, data)
                    break

    monkeypatch.setattr(app, "HTTP", HTTP)
    [found] = await serverapp.pull(question.message_id)
    assert found.metadata.message_id == answer.message_id
    assert stored.count(large) == 1
