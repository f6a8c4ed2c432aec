"""Attacks of strangers on a runtime, each bounded in time and size."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ConfigRecord, RecordDict

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from harness import raw_grpc, raw_http
from harness.channels import Refused
from harness.clients import SuperNode
from harness.fabs import PROJECT, archive, list_of, make_fab
from harness.messages import instruction, reply
from tests.abuse.stranger import Attack, Stranger, outcome_of

_MIB = 1024 * 1024
_HELD_SECONDS = 2.0
"""Seconds for which the rest of a call is held back."""

_BURST = {"grpc": (3_000, 30), "http": (300, 3)}
"""Calls, and channels. A channel over HTTP opens a connection for each call under way."""

_REFUSED = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"}


async def bursts(stranger: Stranger) -> None:
    """Make many calls at once: each is served or told to come again, or stock clients would die."""
    heard = await stranger.list_runs_at_once(*_BURST[stranger.wire])
    assert set(heard) <= {"OK", "UNAVAILABLE"}, heard
    assert heard["OK"], heard


async def resets(stranger: Stranger) -> None:
    """Begin calls and reset them, again and again."""
    async with await raw_grpc.connect(stranger.address("Fleet")) as connection:
        for stream in islice(raw_grpc.stream_ids(), 10_000):
            head = raw_grpc.head_of(stream, "Fleet", "PullMessages")
            await connection.send(head, raw_grpc.reset(stream))


async def half_bodies(stranger: Stranger) -> None:
    """Send bodies without their last byte."""
    size = 10 * _MIB
    connections = [await _begin_body(stranger, size) for _ in range(10)]
    await asyncio.sleep(_HELD_SECONDS)
    for connection in connections:
        connection.writer.transport.abort()


async def _begin_body(stranger: Stranger, size: int) -> raw_grpc.Connection | raw_http.Connection:
    address, body = stranger.address("Control"), bytes(size - 1)
    if stranger.wire == "http":
        over_http = await raw_http.connect(address)
        head = raw_http.head_of("Control", "StartRun", (), size)
        await _in_time(over_http.send(head, body))
        return over_http
    over_grpc = await raw_grpc.connect(address)
    await over_grpc.send(raw_grpc.head_of(1, "Control", "StartRun"))
    await _in_time(over_grpc.send_data(1, raw_grpc.prefix(size) + body))
    return over_grpc


async def _in_time(sending: Coroutine[Any, Any, None]) -> None:
    """Send for a while; a server may take nothing more, or hang up."""
    task = asyncio.ensure_future(sending)
    await asyncio.wait({task}, timeout=1.0)
    task.cancel()
    await asyncio.wait({task})


async def huge_lengths(stranger: Stranger) -> None:
    """Send bodies that are longer than their method needs: they are refused."""
    node = SuperNode(stranger)
    request = fleet.RegisterNodeFleetRequest(public_key=bytes(20 * _MIB))
    calls = [outcome_of(node.call("RegisterNode", request)) for _ in range(4)]
    heard = await asyncio.gather(*calls)
    assert set(heard) <= {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}, heard


async def log_streams(stranger: Stranger) -> None:
    """Open streams of a long log, and read nothing."""
    request = control.StreamLogsRequest(run_id=await _training(stranger)).SerializeToString()
    async with await raw_grpc.connect(stranger.address("Control"), window=0) as connection:
        for stream in islice(raw_grpc.stream_ids(), 100):
            head = raw_grpc.head_of(stream, "Control", "StreamLogs")
            await connection.send(head, raw_grpc.message(stream, request))
        await asyncio.sleep(_HELD_SECONDS)


async def _training(stranger: Stranger) -> int:
    """Return the run in which the stock SuperNodes train."""
    runs = await stranger.call("Control", "ListRuns", control.ListRunsRequest())
    run_id: int = min(runs.run_dict, key=lambda one: runs.run_dict[one].pending_at)
    return run_id


async def open_calls(stranger: Stranger) -> None:
    """Begin calls, and never send their bodies."""
    connections = [await raw_grpc.connect(stranger.address("Fleet")) for _ in range(20)]
    for connection in connections:
        for stream in islice(raw_grpc.stream_ids(), 100):
            await connection.send(raw_grpc.head_of(stream, "Fleet", "RegisterNode"))
    await asyncio.sleep(_HELD_SECONDS)
    for connection in connections:
        connection.writer.transport.abort()


async def fab_bombs(stranger: Stranger) -> None:
    """Submit small apps that cost much time or memory to check."""
    dependency = f'[project]\ndependencies = ["a{">=1," * 200_000}"]'
    slow = make_fab(PROJECT.replace("[project]", dependency))
    files = {"pyproject.toml": PROJECT.encode(), "app/zeros.py": bytes(64 * _MIB)}
    packed = archive({**files, ".info/CONTENT": list_of(files).encode()}.items(), zipfile.ZIP_BZIP2)
    await _start_runs(stranger, [slow, packed] * 2)


async def evil_names(stranger: Stranger) -> None:
    """Submit apps with a harmful name, version or publisher for terminals and paths."""
    await _start_runs(
        stranger,
        [
            make_fab(PROJECT.replace('"app"', r'"e\u001b[2J"')),
            make_fab(PROJECT.replace('"1.2.3"', '"../../../../x"')),
            make_fab(PROJECT.replace('"somebody"', r'"some\u0007body"')),
        ],
    )


async def _start_runs(stranger: Stranger, fabs: Sequence[bytes]) -> None:
    requests = [control.StartRunRequest(fab=common.Fab(content=fab)) for fab in fabs]
    calls = [outcome_of(stranger.call("Control", "StartRun", one)) for one in requests]
    heard = await asyncio.gather(*calls)
    assert set(heard) <= {*_REFUSED, "UNAVAILABLE"}, heard


async def huge_overrides(stranger: Stranger) -> None:
    """Submit huge run configs, which the runtime would keep for ever and show in every list."""
    for size in (300 * 1024, 60 * _MIB):
        request = control.StartRunRequest(fab=common.Fab(content=make_fab()))
        request.override_config["rounds"].string = "x" * size
        for _ in range(4):
            heard = await outcome_of(stranger.call("Control", "StartRun", request))
            # The balancer buffers bodies: behind it the refusal of a long body may get lost.
            assert heard in {*_REFUSED, "UNAVAILABLE"}, heard


async def object_trees(stranger: Stranger) -> None:
    """Push a message with millions of objects, for a run that does not exist."""
    node = await stranger.node()
    question = instruction(12345, node.node_id)
    answer = reply(question)
    children = common.ObjectTree.DESCRIPTOR.fields_by_name["children"].number
    tree = answer.outgoing.tree + bytes([children << 3 | 2, 0]) * 3_500_000
    request = fleet.PushMessagesRequest(
        node=node.node, messages_list=[answer.proto], message_object_trees=[tree]
    )
    heard = await outcome_of(node.call("PushMessages", request))
    assert heard != "OK", heard


async def odd_keys(stranger: Stranger) -> None:
    """Register keys on curves that Flower does not use, and one key in many spellings."""
    odd = SuperNode(stranger, ec.generate_private_key(ec.SECP256K1()))
    assert await outcome_of(_register(odd, odd.public_key)) in _REFUSED
    node = SuperNode(stranger)
    point = node.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    compressed = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
    spellings = [
        node.public_key,
        node.public_key + b"\n",
        b"a comment\n" + node.public_key,
        node.public_key.replace(b"\n", b"\r\n"),
        compressed.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ]
    ids = set()
    for spelling in spellings:
        # A spelling may be refused.
        with suppress(Refused):
            ids.add((await _register(node, spelling)).node_id)
    assert len(ids) == 1


async def guessed_objects(stranger: Stranger) -> None:
    """Ask for objects of other nodes' instructions by guessed hashes."""
    run_id, node = await _training(stranger), await stranger.node()
    for number in range(1, 20):
        content = RecordDict({"round": ConfigRecord({"number": number})})
        for object_id in instruction(run_id, node.node_id, content).objects:
            answer = await node.pull_object(run_id, object_id)
            assert not answer.object_found, number


async def used_signatures(stranger: Stranger) -> None:
    """Use a node's signature a second time, with another call."""
    node = await stranger.node()
    signed = node.metadata()
    heartbeat = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    await stranger.call("Fleet", "SendNodeHeartbeat", heartbeat, signed)
    # Other gateways hear of the used signature within moments (docs/security.md).
    await asyncio.sleep(0.5)
    farewell = fleet.UnregisterNodeFleetRequest(node_id=node.node_id)
    call = stranger.call("Fleet", "UnregisterNode", farewell, signed)
    assert await outcome_of(call) == "UNAVAILABLE"


async def _register(node: SuperNode, public_key: bytes) -> fleet.RegisterNodeFleetResponse:
    node.public_key = public_key
    request = fleet.RegisterNodeFleetRequest(public_key=public_key)
    answer: fleet.RegisterNodeFleetResponse = await node.call("RegisterNode", request)
    return answer


ON_BOTH_WIRES: Sequence[Attack] = (
    bursts,
    half_bodies,
    huge_lengths,
    fab_bombs,
    evil_names,
    huge_overrides,
    object_trees,
    odd_keys,
    guessed_objects,
    used_signatures,
)
OVER_GRPC: Sequence[Attack] = (resets, log_streams, open_calls)
