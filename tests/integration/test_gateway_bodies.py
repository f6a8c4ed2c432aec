"""Bodies: how long they may be, and who has to prove something before one is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from flwr.app import ConfigRecord, RecordDict
from structlog.testing import capture_logs

from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.model.errors import Outcome
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import FLEET, RUNTIME, Method
from flower_nats_gateway.process import wiring
from harness.channels import Metadata, Refused, WireName
from harness.clients import SuperNode
from harness.messages import instruction, reply
from harness.raw_http import connect, head_of
from tests.integration.gateways import Gateway, refusal, running_stack

LIMIT = 128 * 1024
"""Bytes; the real limits would only make the test slow."""


@pytest.fixture
async def gateway(
    connection: Connection,
    nats_url: str,
    pg_dsn: str,
    wire: WireName,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> AsyncIterator[Gateway]:
    for api in ("FLEET", "CONTROL"):
        monkeypatch.setattr(wiring, f"LONGEST_{api}_BODY", LIMIT)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    async with running_stack(nats_url, pg_dsn, wire, superexec_auth_secret_file=secret) as gateway:
        yield gateway


async def heard_without_a_body(
    gateway: Gateway, method: Method, metadata: Metadata
) -> tuple[str, str]:
    """What a caller hears that sends the head of a call and keeps its body back."""
    address = gateway.address(method.api)
    if gateway.wire == "http":
        async with await connect(address) as connection:
            await connection.send(head_of(method.api, method.name, metadata, 1000))
            answer = await connection.answer()
            return Outcome(answer.status).name, answer.said["detail"]
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(10):
        way: Any = channel.stream_unary(method.path)
        call = way(metadata=tuple(metadata))
        return (await call.code()).name, await call.details()


async def test_fleet_reads_no_body_of_a_caller_that_proves_nothing(gateway: Gateway) -> None:
    stranger, forger = SuperNode(gateway), SuperNode(gateway)
    forged = {**dict(stranger.metadata()), "flwr-signature-bin": b"forged"}
    for method in FLEET:
        assert await heard_without_a_body(gateway, method, []) == (
            "UNAUTHENTICATED",
            "Missing authentication metadata",
        )
        assert await heard_without_a_body(gateway, method, list(forged.items())) == (
            "UNAUTHENTICATED",
            "Invalid signature",
        )
        if method.name not in ("RegisterNode", "ActivateNode"):
            assert await heard_without_a_body(gateway, method, forger.metadata()) == (
                "UNAUTHENTICATED",
                "Invalid node ID",
            )


async def test_runtime_reads_no_body_of_a_caller_that_proves_nothing(gateway: Gateway) -> None:
    for method in RUNTIME:
        for metadata in ([], [("flwr-task-token", "00" * 128)]):
            status, text = await heard_without_a_body(gateway, method, metadata)
            assert status == "UNAUTHENTICATED", method.name
            assert "Authentication failed." in text, method.name


async def test_an_object_over_the_limit_is_refused_and_leaves_nothing(
    connection: Connection,
    nats_url: str,
    pg_dsn: str,
    wire: WireName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wiring, "LONGEST_FLEET_BODY", LIMIT)
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        node, app = await gateway.node(), await gateway.server_app()
        question = instruction(app.run_id, node.node_id)
        await app.send(question)
        answer = reply(question, RecordDict({"large": ConfigRecord({"bytes": b"x" * LIMIT})}))
        [large] = [one for one, content in answer.objects.items() if len(content) > LIMIT]
        session = (await node.push(answer)).session_id
        before = await Objects(connection).ids(app.run_id)

        with capture_logs() as logged, pytest.raises(Refused) as caught:
            await node.push_object(app.run_id, session, large, answer.objects[large])

        assert caught.value.outcome is Outcome.RESOURCE_EXHAUSTED
        assert f"more than {LIMIT}" in caught.value.text or wire == "grpc"
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
    refused = await refusal(gateway.call_bytes(service, method, body, metadata))
    assert refused.outcome is Outcome.RESOURCE_EXHAUSTED
