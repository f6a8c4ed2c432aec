"""Bodies of calls: the limits of their length, and the proofs that callers must give before."""

from __future__ import annotations

import asyncio
import os
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest
from flwr.app import ConfigRecord, RecordDict
from structlog.testing import capture_logs

from flower_nats.broker.connection import Connection, Record
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.runlog import RunLogs
from flower_nats.model.errors import Outcome
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME, FLEET, RUNTIME, Method
from flower_nats_gateway.calls import bodies
from flower_nats_gateway.process import wiring
from harness import raw_grpc
from harness.channels import Metadata, Refused, WireName
from harness.children import PATIENCE
from harness.clients import SuperNode
from harness.fabs import PROJECT, make_fab, pack
from harness.messages import instruction, reply
from harness.raw_http import connect, head_of
from tests.integration.gateways import Gateway, refusal, running_stack

LIMIT = 128 * 1024
"""Bytes: with the real limit of an object, the test would be slow."""


@pytest.fixture
async def gateway(
    connection: Connection,
    nats_url: str,
    pg_dsn: str,
    wire: WireName,
    tmp_path: Path,
) -> AsyncIterator[Gateway]:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    async with running_stack(nats_url, pg_dsn, wire, superexec_auth_secret_file=secret) as gateway:
        yield gateway


async def heard_without_a_body(
    gateway: Gateway, method: Method, metadata: Metadata
) -> tuple[str, str]:
    """Send only the head of a call; return the answer."""
    address = gateway.address(method.api)
    if gateway.wire == "http":
        async with await connect(address) as connection:
            await connection.send(head_of(method.api, method.name, metadata, 1000))
            answer = await connection.answer()
            return Outcome(answer.status).name, answer.said["detail"]
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(PATIENCE):
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
    limited = [
        replace(one, longest_request=LIMIT) if one.name == "PushObject" else one for one in FLEET
    ]
    monkeypatch.setattr(wiring, "FLEET", limited)
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

        # Other calls are served, also on the same connection.
        heartbeat = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
        assert (await node.call("SendNodeHeartbeat", heartbeat)).success
        await node.send(reply(question))
        assert len(await app.pull(question.message_id)) == 1


@pytest.mark.parametrize(
    ("service", "method"),
    [("Fleet", "RegisterNode"), ("Control", "StartRun"), ("Control", "ListRuns")],
)
async def test_a_method_takes_no_more_than_it_needs(
    gateway: Gateway, service: str, method: str
) -> None:
    longest = BY_NAME[(service, method)].longest_request
    body, metadata = b"x" * (longest + 1), SuperNode(gateway).metadata()
    refused = await refusal(gateway.call_bytes(service, method, body, metadata))
    assert refused.outcome is Outcome.RESOURCE_EXHAUSTED
    # gRPC itself refuses bodies that are too long for all methods of its port.
    assert str(longest) in refused.text or service == "Control"


class Upload:
    """A body that the test sends piece by piece."""

    def __init__(self, gateway: Gateway, connection: Any, api: str, name: str) -> None:
        self._gateway = gateway
        self._connection = connection
        self._call = api, name

    @classmethod
    async def begin(cls, gateway: Gateway, api: str, name: str) -> Upload:
        address = gateway.address(api)
        way = raw_grpc.connect if gateway.wire == "grpc" else connect
        return cls(gateway, await way(address), api, name)

    async def announce(self, length: int, body: bytes, metadata: Metadata = ()) -> None:
        """Send the head of the call, the length of its body, and the start of the body."""
        if self._gateway.wire == "http":
            await self._connection.send(head_of(*self._call, metadata, length), body)
        else:
            await self._connection.send(raw_grpc.head_of(1, *self._call, metadata))
            await self.more(raw_grpc.prefix(length) + body)

    async def more(self, body: bytes, *, end: bool = False) -> None:
        """Send more of the body."""
        if self._gateway.wire == "http":
            await self._connection.send(body)
        else:
            await self._connection.send_data(1, body, end=end)

    async def heard(self, within: float = 10.0) -> bytes:
        """Return the first bytes of an answer, up to its status; empty if the connection ends."""
        reader: asyncio.StreamReader = self._connection.reader
        mark = b"grpc-status" if self._gateway.wire == "grpc" else b"\r\n\r\n"
        text = b""
        async with asyncio.timeout(within):
            with suppress(ConnectionError):
                while mark not in text and (data := await reader.read(64 * 1024)):
                    text += data
        return text

    def end(self) -> None:
        self._connection.writer.transport.abort()


_MIB = 1024 * 1024


def start_run_of(size: int) -> bytes:
    """Return a StartRun request with an app of about so many bytes."""
    fab = pack({"pyproject.toml": PROJECT, "app/data.bin": os.urandom(size)})
    return control.StartRunRequest(fab=common.Fab(content=fab)).SerializeToString()


async def body_bytes(gateway: Gateway) -> int:
    url = f"http://{gateway.settings.http_health_address}/metrics"
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=PATIENCE) as answer:
        [found] = re.findall(
            r"^flower_nats_request_body_bytes (\d+)$", answer.read().decode(), re.M
        )
    return int(found)


async def until_served(gateway: Gateway, request: bytes) -> bytes:
    """Start a run like clients, which ask an overloaded gateway again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await gateway.call_bytes("Control", "StartRun", request)
            except Refused as refused:
                if refused.outcome is not Outcome.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)


async def test_bodies_that_hold_back_their_end_are_bounded(
    nats_url: str, pg_dsn: str, wire: WireName, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = 8 * _MIB
    monkeypatch.setattr(bodies, "STRANGERS_POOL", pool)
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        uploads = [await Upload.begin(gateway, "Control", "StartRun") for _ in range(8)]
        held = 0
        for one in uploads:
            sending = asyncio.create_task(one.announce(9 * _MIB, bytes(3 * _MIB)))
            await asyncio.wait({sending}, timeout=0.5)
            sending.cancel()
            held = max(held, await body_bytes(gateway))
        assert 3 * _MIB <= held <= pool + 4 * _MIB

        # A stalled body makes room for a new body. Until then the caller of the new body is told to
        # try again, like clients do.
        monkeypatch.setattr(bodies, "_LATELY", 0.2)
        answer = await until_served(gateway, start_run_of(2 * _MIB))
        assert control.StartRunResponse.FromString(answer).run_id
        for one in uploads:
            one.end()
        await gateway.until_in_hand(0)
        assert await body_bytes(gateway) == 0


async def test_a_body_that_stops_is_ended_and_one_that_moves_is_not(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PAUSE", 0.8)
    request = start_run_of(_MIB)
    piece = len(request) // 10 + 1
    stopped, slow = [await Upload.begin(gateway, "Control", "StartRun") for _ in range(2)]
    await stopped.announce(len(request), request[:piece])
    await slow.announce(len(request), request[:piece])
    for at in range(piece, len(request), piece):
        await asyncio.sleep(0.25)
        await slow.more(request[at : at + piece], end=at + piece >= len(request))

    answer, end = await slow.heard(), await stopped.heard()

    assert (b"grpc-status\x010" in answer) or b"200 OK" in answer
    assert b"grpc-status\x0214" in end or end == b""


STREAMS = 16
LOG = 9 * _MIB


async def test_followers_of_a_log_that_read_nothing_cost_little_memory(
    gateway: Gateway, connection: Connection
) -> None:
    start = control.StartRunRequest(fab=common.Fab(content=make_fab()))
    run = await gateway.call("Control", "StartRun", start)
    for number in range(LOG // _MIB):
        call = Lines(f"{run.run_id}.{number}")
        await RunLogs(connection).append(run.run_id, f"{number:01023}\n" * 1024, call)
    request = control.StreamLogsRequest(run_id=run.run_id).SerializeToString()
    memory = psutil.Process().memory_info().rss

    followers = [await follow(gateway, request) for _ in range(STREAMS)]
    # A follower that reads gets the whole log, after the earlier followers.
    got = 0
    async for answer in gateway.follow(run.run_id):
        got += len(answer.log_output)
        if got >= LOG:
            break
    grown = psutil.Process().memory_info().rss - memory
    held = held_by_the_system(gateway.address("Control"))

    for one in followers:
        one.writer.transport.abort()
    await gateway.until_in_hand(0)
    assert grown < 200 * _MIB
    assert held < STREAMS * _MIB


def held_by_the_system(address: str) -> int:
    """Return the bytes of answers in the system's send buffers of a port."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    lines = [one.split() for one in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(line[4].partition(":")[0], 16) for line in lines if line[1].endswith(port))


@dataclass
class Lines:
    """A call with log lines."""

    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def may_repeat(self, _earlier: Record) -> bool:
        return False


async def follow(gateway: Gateway, request: bytes) -> Any:
    """Follow a log without reading."""
    address = gateway.address("Control")
    if gateway.wire == "grpc":
        stranger = await raw_grpc.connect(address, window=0)
        head = raw_grpc.head_of(1, "Control", "StreamLogs")
        await stranger.send(head, raw_grpc.message(1, request))
        return stranger
    caller = await connect(address)
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await caller.send(head_of("Control", "StreamLogs", (), len(request)), request)
    return caller
