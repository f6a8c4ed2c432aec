"""Bad input of callers: each gets a clear refusal, and nothing is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from structlog.testing import capture_logs

from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.model.errors import Outcome
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.messages import Outgoing
from flower_nats.wire.methods import BY_NAME, CONTROL, FLEET, RUNTIME
from harness.clients import SuperNode
from harness.fabs import PROJECT, make_fab
from harness.messages import Parcel, instruction, parcel, reply
from harness.superexec import superexec_proof
from tests.integration import gateways
from tests.integration.gateways import BEFORE_THE_HOLD_ENDS, Gateway, running_stack


@pytest.fixture
async def gateway(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn) as gateway:
        yield gateway


async def refusal(call: Awaitable[Any]) -> tuple[Outcome | None, str]:
    refused = await gateways.refusal(call)
    return refused.outcome, refused.text


async def in_flight(gateway: Gateway) -> set[str]:
    connection = gateway.superlink.connection
    found = (await Mailbox(connection).in_flight()).values()
    return {one for flight in found for one in (*flight.sessions, *flight.instructions)}


def changed(one: Parcel, **metadata: Any) -> Parcel:
    """Return a parcel with other metadata."""
    message = one.proto
    for name, value in metadata.items():
        setattr(message.metadata, name, value)
    return Parcel(one.flwr, Outgoing(message.SerializeToString(), one.outgoing.tree), one.objects)


async def test_garbage_is_refused_by_every_method_and_ends_nothing(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    token = [("flwr-task-token", app.token)]
    garbage = b"\xff\xff\xff\xff garbage"
    refused = {Outcome.INVALID_ARGUMENT, Outcome.UNAUTHENTICATED}
    for method in FLEET:
        call = gateway.call_bytes("Fleet", method.name, garbage, node.metadata())
        assert (await refusal(call))[0] in refused, method
    for method in (*RUNTIME, *(one for one in CONTROL if not one.streams)):
        if method.request.DESCRIPTOR.fields:
            call = gateway.call_bytes(method.api, method.name, garbage, token)
            code, text = await refusal(call)
            assert code in {
                *refused,
                Outcome.UNIMPLEMENTED,
                Outcome.FAILED_PRECONDITION,
                Outcome.PERMISSION_DENIED,
                Outcome.NOT_FOUND,
            }, (method, text)
    assert (await app.call("GetNodes", runtime.GetNodesRequest())).nodes[0].node_id == node.node_id


async def test_fields_we_do_not_know_are_passed_on(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    message = common.Message.FromString(question.outgoing.message + b"\xfa\x3e\x03new")
    strange = Parcel(
        question.flwr,
        Outgoing(message.SerializeToString(), question.outgoing.tree),
        question.objects,
    )
    await app.send(strange)
    got, _ = await node.pull()
    assert b"\xfa\x3e\x03new" in got.SerializeToString()


async def test_a_request_stuffed_with_what_nobody_knows_is_served(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    stuffing = b"\xfa\x3e\x80\x80\x02" + bytes(32 * 1024)
    request = common.GetRunRequest(run_id=app.run_id, node=common.Node(node_id=node.node_id))
    body = request.SerializeToString() + stuffing

    answer = await gateway.call_bytes("Fleet", "GetRun", body, node.metadata())

    assert common.GetRunResponse.FromString(answer).run.run_id == app.run_id


async def test_a_call_without_signature_is_refused(gateway: Gateway) -> None:
    node = await gateway.node()
    request = fleet.PullMessagesRequest(node=node.node)
    full = dict(node.metadata())
    for missing in full:
        rest = [(key, value) for key, value in full.items() if key != missing]
        assert await refusal(gateway.call("Fleet", "PullMessages", request, rest)) == (
            Outcome.UNAUTHENTICATED,
            "Missing authentication metadata",
        )


@pytest.mark.parametrize("offset", [-306.0, 6.0])
async def test_a_stale_or_future_time_is_refused(gateway: Gateway, offset: float) -> None:
    node = await gateway.node()
    call = node.call("PullMessages", fleet.PullMessagesRequest(node=node.node), offset)
    assert await refusal(call) == (Outcome.UNAUTHENTICATED, "Invalid timestamp")


async def test_a_signature_of_another_key_or_time_is_refused(gateway: Gateway) -> None:
    node, other = await gateway.node(), SuperNode(gateway)
    request = fleet.PullMessagesRequest(node=node.node)
    mixed = {
        **dict(node.metadata()),
        "flwr-signature-bin": dict(other.metadata())["flwr-signature-bin"],
    }
    for metadata in (
        mixed,
        {**dict(node.metadata()), "flwr-signature-bin": b"nonsense"},
        {**dict(node.metadata()), "flwr-public-key-bin": b"nonsense"},
    ):
        call = gateway.call("Fleet", "PullMessages", request, list(metadata.items()))
        assert await refusal(call) == (Outcome.UNAUTHENTICATED, "Invalid signature")


async def test_a_node_may_only_be_itself(gateway: Gateway) -> None:
    node, other = await gateway.node(), await gateway.node()
    call = node.call("PullMessages", fleet.PullMessagesRequest(node=other.node))
    assert await refusal(call) == (Outcome.UNAUTHENTICATED, "Invalid node ID")
    request = fleet.ActivateNodeRequest(public_key=other.public_key, heartbeat_interval=30)
    assert (await refusal(node.call("ActivateNode", request)))[0] is Outcome.UNAUTHENTICATED


async def test_an_unregistered_node_is_refused_at_once(gateway: Gateway) -> None:
    node = await gateway.node()
    await node.call("UnregisterNode", fleet.UnregisterNodeFleetRequest(node_id=node.node_id))
    heartbeat = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    call = node.call("SendNodeHeartbeat", heartbeat)
    assert await refusal(call) == (Outcome.UNAUTHENTICATED, "Invalid node ID")


async def test_a_node_that_is_unregistered_while_it_waits_hears_of_it_at_once(
    gateway: Gateway,
) -> None:
    node = await gateway.node()
    with capture_logs() as logged:
        waiting = asyncio.create_task(node.pull())
        await asyncio.sleep(0.3)
        await node.call("UnregisterNode", fleet.UnregisterNodeFleetRequest(node_id=node.node_id))
        async with asyncio.timeout(BEFORE_THE_HOLD_ENDS):
            assert await refusal(waiting) == (Outcome.UNAUTHENTICATED, "Invalid node ID")
    # A stock SuperNode ends without a reason in its output: the gateway's log has it, once.
    [reason] = [line["reason"] for line in logged if line["event"] == "call_refused"]
    assert f"SuperNode {node.node_id} was unregistered" in reason
    assert "flwr supernode register" in reason


async def test_a_heartbeat_interval_out_of_bounds_is_refused(gateway: Gateway) -> None:
    node = await gateway.node()
    for interval in (0.0, 9.9, 1801.0, float("nan")):
        request = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=interval)
        refused = await gateways.refusal(node.call("SendNodeHeartbeat", request))
        assert refused.outcome is Outcome.INVALID_ARGUMENT
        assert refused.code == 2003


async def test_unknown_things_are_named_as_unknown(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    found = await node.pull_object(app.run_id, "ab" * 32)
    assert not found.object_found
    assert not (await app.pull_object("../../etc/passwd")).object_found
    code, text = await refusal(node.pull_object(12345, "ab" * 32))
    assert code is Outcome.FAILED_PRECONDITION
    assert "Run 12345 is unknown." in text
    run = common.GetRunRequest(node=node.node, run_id=12345)
    assert (await refusal(node.call("GetRun", run)))[0] is Outcome.PERMISSION_DENIED
    fab = common.GetFabRequest(node=node.node, run_id=app.run_id, hash_str="00" * 32)
    assert (await refusal(node.call("GetFab", fab)))[0] is Outcome.PERMISSION_DENIED
    stop = gateway.call("Control", "StopRun", control.StopRunRequest(run_id=12345))
    assert (await refusal(stop))[0] is Outcome.NOT_FOUND
    claim = runtime.ClaimTaskRequest(task_id=12345)
    assert not (await gateway.call("Runtime", "ClaimTask", claim)).HasField("token")


async def test_a_token_is_good_for_its_own_task_only(gateway: Gateway) -> None:
    one, two = await gateway.server_app(), await gateway.server_app()
    node = await gateway.node()
    question = instruction(one.run_id, node.node_id)
    one.token, mine = two.token, one.token
    assert (await refusal(one.push(question)))[0] is Outcome.INVALID_ARGUMENT
    for token in ("", "00" * 128, mine[:-1], "nonsense"):
        call = one.call("GetNodes", runtime.GetNodesRequest(), token=token)
        assert (await refusal(call))[0] is Outcome.UNAUTHENTICATED


async def test_an_object_that_is_not_its_id_is_not_stored(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    answer = reply(question)
    pushed = await node.push(answer)
    for object_id in pushed.objects_to_push:
        assert not await node.push_object(app.run_id, pushed.session_id, object_id, b"other")
    assert not await node.push_object(app.run_id, pushed.session_id, "ab" * 32, b"other")
    assert not await node.push_object(app.run_id, "0" * 32, "ab" * 32, b"other")
    assert not await node.push_object(app.run_id, "*", pushed.objects_to_push[0], b"other")
    [error] = await app.pull(question.message_id)
    assert "does not hash to its id" in error.error.reason
    stored = await Objects(gateway.superlink.connection).ids(app.run_id)
    assert stored == {*question.objects, error.metadata.message_id}


async def test_an_object_of_the_right_hash_and_the_wrong_form_is_not_stored(
    gateway: Gateway,
) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    endless = b"Array  " + 5000 * b"9" + b"\x00x"
    heads = (b"", b"no divider", b"Array  7\x00short", b"Array nochild 1\x00x", b"A b\x00", endless)
    for content in heads:
        question = instruction(app.run_id, node.node_id)
        await app.send(question)
        object_id = hashlib.sha256(content).hexdigest()
        answer = changed(reply(question), message_id=object_id)
        tree = common.ObjectTree(object_id=object_id).SerializeToString()
        pushed = await node.push(Parcel(answer.flwr, Outgoing(answer.outgoing.message, tree), {}))
        assert list(pushed.objects_to_push) == [object_id]
        assert not await node.push_object(app.run_id, pushed.session_id, object_id, content)
        [error] = await app.pull(question.message_id)
        assert object_id in error.error.reason


async def test_a_reply_to_anothers_instruction_leaves_no_trace(gateway: Gateway) -> None:
    node, other, app = await gateway.node(), await gateway.node(), await gateway.server_app()
    another_app = await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    before = await in_flight(gateway)
    answer = reply(question)

    stolen = changed(answer, src_node_id=other.node_id)
    assert list((await other.push(stolen)).objects_to_push) == []
    assert (await refusal(other.push(answer)))[0] is Outcome.INVALID_ARGUMENT
    elsewhere = changed(answer, run_id=another_app.run_id)
    assert list((await node.push(elsewhere)).objects_to_push) == []
    unknown = changed(answer, reply_to_message_id="cd" * 32)
    assert list((await node.push(unknown)).objects_to_push) == []

    assert await in_flight(gateway) == before


async def test_a_reply_that_would_outlive_its_instruction_is_refused(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id, ttl=60.0)
    await app.send(question)
    late = changed(reply(question), ttl=3600.0)
    assert list((await node.push(late)).objects_to_push) == []


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"ttl": 0.0}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"created_at": 5.0}, "created_at"),
        ({"created_at": 1740700801.0, "ttl": 1.0}, "expired"),
        ({"dst_node_id": 0}, "dst_node_id"),
        ({"src_node_id": 2}, "src_node_id"),
        ({"message_type": ""}, "message_type"),
        ({"reply_to_message_id": "ab" * 32}, "reply_to_message_id"),
        ({"message_id": ""}, "message id"),
        ({"message_id": "fn.run.>"}, "message id"),
        ({"run_id": 99}, "run_id"),
    ],
)
async def test_a_message_that_breaks_a_rule_is_refused_and_the_rule_named(
    gateway: Gateway, metadata: dict[str, Any], named: str
) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = changed(instruction(app.run_id, node.node_id), **metadata)
    code, text = await refusal(app.push(question))
    assert code is Outcome.INVALID_ARGUMENT
    assert named in text
    assert await in_flight(gateway) == set()


async def test_a_message_to_a_node_that_is_not_there_gets_no_id(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    there, nowhere = instruction(app.run_id, node.node_id), instruction(app.run_id, 4711)
    superlink = instruction(app.run_id, 1)
    assert await app.send(nowhere, superlink, there) == ["", "", there.message_id]
    assert (await node.pull())[0].metadata.message_id == there.message_id


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


async def test_trees_that_are_no_trees_are_refused(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    # The protobuf library refuses to build a tree this deep, so it is built by hand.
    deep = b""
    for _ in range(200):
        deep = b"\x0a\x40" + b"ab" * 32 + b"\x12" + _varint(len(deep)) + deep
    for tree in (
        b"",
        b"\xff\xff",
        deep,
        common.ObjectTree(object_id="x.>").SerializeToString(),
    ):
        bad = Parcel(question.flwr, Outgoing(question.outgoing.message, tree), {})
        assert (await refusal(app.push(bad)))[0] is Outcome.INVALID_ARGUMENT
    empty = runtime.PushAppMessagesRequest()
    assert (await refusal(app.call("PushMessages", empty)))[0] is Outcome.INVALID_ARGUMENT


async def test_a_message_larger_than_the_broker_takes_is_refused(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    message = Message(
        RecordDict({"c": ConfigRecord({"a": 1})}),
        dst_node_id=node.node_id,
        message_type="train",
        group_id="x" * (9 * 1024 * 1024),
    )
    code, text = await refusal(app.push(parcel(message, app.run_id, 1)))
    assert code is Outcome.INVALID_ARGUMENT
    assert "max_payload" in text


async def test_superexec_calls_need_the_secret_and_cannot_be_replayed(
    nats_url: str, pg_dsn: str, tmp_path: Path
) -> None:
    secret = secrets.token_bytes(32)
    (tmp_path / "secret").write_bytes(secret)
    method = BY_NAME[("Runtime", "PullPendingTasks")]
    denied = (Outcome.UNAUTHENTICATED, "Authentication failed.")
    async with running_stack(
        nats_url, pg_dsn, superexec_auth_secret_file=tmp_path / "secret"
    ) as gateway:
        await gateway.call(
            "Control", "StartRun", control.StartRunRequest(fab=common.Fab(content=make_fab()))
        )

        def pull(metadata: list[tuple[str, str]]) -> Awaitable[Any]:
            request = runtime.PullPendingTasksRequest()
            return gateway.call("Runtime", "PullPendingTasks", request, metadata)

        good = superexec_proof(secret, method, "grpc")
        assert len((await pull(good)).tasks) == 1
        assert await refusal(pull(good)) == denied
        assert await refusal(pull([])) == denied
        assert await refusal(pull(superexec_proof(b"another", method, "grpc"))) == denied
        old = superexec_proof(secret, method, "grpc", offset=-400)
        assert await refusal(pull(old)) == denied


SILENT = 10_000
SILENT_CALLERS = """
import socket, sys
address, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
held = [socket.create_connection(address, 30) for _ in range(count)]
print("silent", flush=True)
sys.stdin.read()
"""


async def test_ten_thousand_silent_connections_hinder_nobody(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    host, _, port = gateway.settings.fleet_api_address.partition(":")
    # They run in their own process, because each connection takes a file descriptor at both ends.
    command = [sys.executable, "-c", SILENT_CALLERS, host, port, str(SILENT)]
    pipe = asyncio.subprocess.PIPE
    callers = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert callers.stdout is not None
    assert await asyncio.wait_for(callers.stdout.readline(), 60) == b"silent\n"

    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    assert (await node.pull())[0].metadata.message_id == question.message_id

    assert callers.returncode is None
    await callers.communicate(b"")


async def test_an_app_is_refused_with_the_reason_however_long_the_names_in_it_are(
    gateway: Gateway,
) -> None:
    fab = make_fab(PROJECT.replace("rounds = 3", f"{'rounds' * 20_000} = [3]"))
    request = control.StartRunRequest(fab=common.Fab(content=fab))

    status, details = await refusal(gateway.call("Control", "StartRun", request))

    assert status is Outcome.FAILED_PRECONDITION
    assert 'The configuration value "roundsrounds' in details
