"""The memory of gateways and superlinks while very large objects move to and from many nodes."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import psycopg
import pytest
from flwr.app import ConfigRecord, RecordDict

from flower_nats.model.errors import Outcome
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from harness.channels import Refused, WireName
from harness.clients import ServerApp, SuperNode
from harness.messages import Parcel, instruction, reply
from tests.integration.processes import Runtime, running_processes

P = ParamSpec("P")
T = TypeVar("T")

MIB = 1024 * 1024
NODES = 3

TIMES = 4
"""How many times a gateway may hold a large object, over either wire."""

BESIDE = {"grpc": 256, "http": 64}
"""MiB that a gateway may hold besides: several objects that are not so large pass at once, and gRPC
has copies of its own."""


CONTEXT_TIMES = 8
"""How many times a superlink may hold a large context."""


@pytest.fixture
async def processes(
    nats_url: str, pg_dsn: str, wire: WireName, tmp_path: Path
) -> AsyncIterator[Runtime]:
    async with running_processes(nats_url, pg_dsn, wire, tmp_path) as runtime:
        yield runtime


async def patiently(call: Callable[P, Awaitable[T]], *args: P.args, **more: P.kwargs) -> T:
    """Call like stock clients, which call again if there is no room."""
    while True:
        try:
            return await call(*args, **more)
        except Refused as exc:
            if exc.outcome is not Outcome.UNAVAILABLE:
                raise
            await asyncio.sleep(0.5)


def content(seed: int, size: int) -> RecordDict:
    """Return a record of so many bytes, deflated once: flwr would deflate it twenty times."""
    record = ConfigRecord({"bytes": bytes([seed]) * size})
    deflated: bytes = record.deflate()
    its_id = record.object_id

    class Deflated(ConfigRecord):  # type: ignore[misc]
        object_id = its_id

        def deflate(self) -> bytes:
            return deflated

    record.__class__ = Deflated
    return RecordDict({"large": record})


def largest(one: Parcel) -> tuple[str, bytes]:
    return max(one.objects.items(), key=lambda pair: len(pair[1]))


async def ask(app: ServerApp, nodes: list[SuperNode], content: RecordDict) -> list[Parcel]:
    """Send all nodes the same content; they pull it at the same time."""
    questions = [instruction(app.run_id, node.node_id, content) for node in nodes]
    objects = dict(itertools.chain(*(one.objects.items() for one in questions)))
    pushed = await app.push(*questions)
    for key in pushed.objects_to_push:
        await patiently(app.push_object, pushed.session_id, key, objects[key])
    key, data = largest(questions[0])

    async def pull(node: SuperNode) -> None:
        found = await patiently(node.pull_object, app.run_id, key)
        assert found.object_content == data

    await asyncio.gather(*map(pull, nodes))
    return questions


async def answer(app: ServerApp, node: SuperNode, parcel: Parcel) -> None:
    pushed = await node.push(parcel)
    for key in pushed.objects_to_push:
        data = parcel.objects[key]
        await patiently(node.push_object, app.run_id, pushed.session_id, key, data)


async def exchange(app: ServerApp, nodes: list[SuperNode], size: int) -> None:
    """Send all nodes a large object; all answer at once, each with an object of the same size."""
    questions = await ask(app, nodes, content(0, size))
    answers = [reply(one, content(seed, size)) for seed, one in enumerate(questions, 1)]
    await asyncio.gather(*(answer(app, *one) for one in zip(nodes, answers, strict=True)))
    for one in answers:
        key, data = largest(one)
        assert (await patiently(app.pull_object, key)).object_content == data


async def live(app: ServerApp, nodes: list[SuperNode]) -> None:
    """Send heartbeats, like stock clients, until cancelled."""
    while True:
        await app.call("SendTaskHeartbeat", runtime.SendTaskHeartbeatRequest())
        for one in nodes:
            beat = fleet.SendNodeHeartbeatRequest(node=one.node, heartbeat_interval=30)
            await one.call("SendNodeHeartbeat", beat)
        await asyncio.sleep(5)


@pytest.mark.parametrize("megabytes", [32, pytest.param(200, marks=pytest.mark.long)])
async def test_large_objects_are_not_held_as_often_as_they_move(
    processes: Runtime, megabytes: int
) -> None:
    clients, size = processes.clients, megabytes * MIB
    nodes = [await clients.node() for _ in range(NODES)]
    app = await clients.server_app()
    living = asyncio.create_task(live(app, nodes))
    await exchange(app, nodes, 1000)
    before = processes.peaks()

    await exchange(app, nodes, size)

    living.cancel()
    after = processes.peaks()
    assert after["superlink"] < before["superlink"] + megabytes
    assert after["gateway"] < before["gateway"] + BESIDE[processes.clients.wire] + TIMES * megabytes
    for one in (processes.superlink, processes.gateway):
        assert "broker_away" not in one.output()


@pytest.mark.parametrize("megabytes", [16, pytest.param(200, marks=pytest.mark.long)])
async def test_a_large_context_is_kept_whole(
    processes: Runtime, pg_dsn: str, megabytes: int
) -> None:
    app = await processes.clients.server_app()
    before = processes.peaks()
    context = os.urandom(megabytes * MIB)

    await app.call(
        "PushTaskOutput",
        runtime.PushTaskOutputRequest(sub_status="completed", context=context),
    )

    with psycopg.connect(pg_dsn, autocommit=True) as connection:
        row = connection.execute("SELECT context FROM series").fetchone()
    assert row is not None
    assert bytes(row[0]) == context
    after = processes.peaks()
    assert after["superlink"] < before["superlink"] + CONTEXT_TIMES * megabytes
    assert "rpc_retried" not in processes.gateway.output()
