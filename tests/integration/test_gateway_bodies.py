"""Bodies: how long they may be, and who has to prove something before one is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from flwr.app import ConfigRecord, RecordDict
from structlog.testing import capture_logs

from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import FLEET, RUNTIME, Method
from flower_nats_gateway.process import wiring
from tests.harness.clients import Metadata, SuperNode
from tests.harness.messages import instruction, reply
from tests.integration.gateways import Gateway, running_stack

Status = grpc.StatusCode

LIMIT = 128 * 1024
"""Bytes; the real limits would only make the test slow."""


@pytest.fixture
async def gateway(
    connection: Connection, nats_url: str, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    for api in ("FLEET", "CONTROL"):
        monkeypatch.setattr(wiring, f"LONGEST_{api}_BODY", LIMIT)
    async with running_stack(nats_url, pg_dsn, superexec_auth_secret=b"secret") as gateway:
        yield gateway


async def heard_without_a_body(
    gateway: Gateway, method: Method, metadata: Metadata
) -> tuple[grpc.StatusCode, str]:
    """What a caller hears that sends the head of a call and keeps its body back."""
    way: Any = gateway.channels[method.api].stream_unary(method.path)
    call = way(metadata=tuple(metadata))
    async with asyncio.timeout(10):
        return await call.code(), await call.details()


async def test_fleet_reads_no_body_of_a_caller_that_proves_nothing(gateway: Gateway) -> None:
    stranger, forger = SuperNode(gateway), SuperNode(gateway)
    forged = {**dict(stranger.metadata()), "flwr-signature-bin": b"forged"}
    for method in FLEET:
        assert await heard_without_a_body(gateway, method, []) == (
            Status.UNAUTHENTICATED,
            "Missing authentication metadata",
        )
        assert await heard_without_a_body(gateway, method, list(forged.items())) == (
            Status.UNAUTHENTICATED,
            "Invalid signature",
        )
        if method.name not in ("RegisterNode", "ActivateNode"):
            assert await heard_without_a_body(gateway, method, forger.metadata()) == (
                Status.UNAUTHENTICATED,
                "Invalid node ID",
            )


async def test_serverappio_reads_no_body_of_a_caller_that_proves_nothing(gateway: Gateway) -> None:
    for method in RUNTIME:
        for metadata in ([], [("flwr-task-token", "00" * 128)]):
            heard = await heard_without_a_body(gateway, method, metadata)
            assert heard == (Status.UNAUTHENTICATED, "Authentication failed."), method.name


async def test_an_object_over_the_limit_is_refused_and_leaves_nothing(
    connection: Connection, nats_url: str, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "LONGEST_FLEET_BODY", LIMIT)
    async with running_stack(nats_url, pg_dsn) as gateway:
        node, app = await gateway.node(), await gateway.server_app()
        question = instruction(app.run_id, node.node_id)
        await app.send(question)
        answer = reply(question, RecordDict({"large": ConfigRecord({"bytes": b"x" * LIMIT})}))
        [large] = [one for one, content in answer.objects.items() if len(content) > LIMIT]
        session = (await node.push(answer)).session_id
        before = await Objects(connection).ids(app.run_id)

        with capture_logs() as logged, pytest.raises(grpc.aio.AioRpcError) as caught:
            await node.push_object(app.run_id, session, large, answer.objects[large])

        assert caught.value.code() is Status.RESOURCE_EXHAUSTED
        assert "larger than max" in (caught.value.details() or "")
        [line] = [one for one in logged if one["event"] == "call_refused"]
        assert line["rpc"] == "Fleet.PushObject"
        assert str(LIMIT) in line["reason"]
        assert line["peer"]
        assert await Objects(connection).ids(app.run_id) == before
        flight = (await Mailbox(connection).in_flight(app.run_id))[app.run_id]
        assert not flight.replies

        # The rest of the world goes on, by the same connection too.
        heartbeat = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
        assert (await node.call("SendNodeHeartbeat", heartbeat)).success
        await node.send(reply(question))
        assert len(await app.pull(question.message_id)) == 1


@pytest.mark.parametrize(
    ("service", "method"), [("Fleet", "RegisterNode"), ("Control", "StartRun")]
)
async def test_calls_of_the_outer_apis_have_a_limit(
    gateway: Gateway, service: str, method: str
) -> None:
    body, metadata = b"x" * (LIMIT + 1), SuperNode(gateway).metadata()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.call_bytes(service, method, body, metadata)
    assert caught.value.code() is Status.RESOURCE_EXHAUSTED
