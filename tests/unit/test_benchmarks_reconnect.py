"""The benchmark's nodes must come back after a broken connection like stock nodes."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from benchmarks import loadgen, node
from benchmarks.fleet import Key, Late, Refused, Tally, Unavailable
from benchmarks.http2_client import OK, Http2Connection, decode_fields, encode_fields
from benchmarks.loadgen import Generator
from benchmarks.plan import FULL, QUICK
from benchmarks.processes import allowed_files
from benchmarks.report import describe, details, verdicts
from benchmarks.scenarios import Ceiling, Cell, Reconnect
from benchmarks.targets import FlowerNats
from benchmarks.wire_grpc import GrpcWire
from benchmarks.wire_grpc_light import LightGrpcWire
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from harness.flower import GRPC, HTTP

_VERSION = "1.33.0"
_SOON = 5.0
_HEARTBEAT = BY_NAME["Fleet", "SendNodeHeartbeat"]
_PULL = BY_NAME["Fleet", "PullMessages"]

Context = grpc.aio.ServicerContext[Any, Any]


class Server(grpc.GenericRpcHandler):
    """A Fleet API over gRPC that holds polls; a test may set its other answers."""

    def __init__(self) -> None:
        self.address = ""
        self.metadata: list[dict[str, Any]] = []
        self.answers: defaultdict[str, list[grpc.StatusCode]] = defaultdict(list)
        """Statuses for the next calls of a method; later calls are served."""

    async def start(self) -> None:
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        name = details.method.rpartition("/")[2]

        async def serve(_request: bytes, context: Context) -> bytes:
            self.metadata.append(dict(cast(Any, context.invocation_metadata())))
            if self.answers[name]:
                await context.abort(self.answers[name].pop(0), "too many calls")
            answer: bytes = await getattr(self, name)()
            return answer

        return grpc.unary_unary_rpc_method_handler(cast(Any, serve))

    async def RegisterNode(self) -> bytes:
        return fleet.RegisterNodeFleetResponse(node_id=7).SerializeToString()

    async def ActivateNode(self) -> bytes:
        return fleet.ActivateNodeResponse(node_id=7).SerializeToString()

    async def SendNodeHeartbeat(self) -> bytes:
        return fleet.SendNodeHeartbeatResponse(success=True).SerializeToString()

    async def PullMessages(self) -> bytes:
        await asyncio.sleep(60)
        return b""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[LightGrpcWire]:
    one = LightGrpcWire(server.address, _VERSION, Key().public, Tally())
    yield one
    await one.close()


async def _beat(wire: LightGrpcWire) -> Any:
    return await wire.send(_HEARTBEAT, b"", Key().proof(), _SOON)


async def test_a_light_call_is_answered_as_one_of_grpc(server: Server, wire: LightGrpcWire) -> None:
    for _ in range(3):
        assert (await _beat(wire)).success

    assert wire._tally.connections == 1


async def test_a_light_call_carries_what_one_of_grpc_carries(
    server: Server,
) -> None:
    key = Key()
    proof = key.proof()
    light = LightGrpcWire(server.address, _VERSION, key.public, Tally())
    usual = GrpcWire(server.address, _VERSION, key.public)

    for wire in (light, usual):
        await wire.send(_HEARTBEAT, b"", proof, _SOON)
        await wire.close()

    one, other = ({k: v for k, v in x.items() if k != "user-agent"} for x in server.metadata)
    assert one == other
    assert one["flwr-public-key-bin"] == key.public


async def test_refusals_are_told_apart_as_a_stock_node_tells_them(
    server: Server, wire: LightGrpcWire
) -> None:
    code = grpc.StatusCode
    server.answers["SendNodeHeartbeat"] = [code.UNAVAILABLE, code.CANCELLED, code.DEADLINE_EXCEEDED]

    with pytest.raises(Unavailable, match="UNAVAILABLE too many calls"):
        await _beat(wire)
    with pytest.raises(Refused, match="SendNodeHeartbeat: code 1 too many calls"):
        await _beat(wire)
    with pytest.raises(Late):
        await _beat(wire)
    with pytest.raises(Late):
        await wire.send(_PULL, b"", Key().proof(), 0.1)
    assert (await _beat(wire)).success


async def test_a_server_that_is_gone_is_unavailable(server: Server, wire: LightGrpcWire) -> None:
    poll = asyncio.create_task(wire.send(_PULL, b"", Key().proof(), None))
    await _beat(wire)

    await server.stop()

    with pytest.raises(Unavailable):
        await poll
    with pytest.raises(Unavailable, match="no connection"):
        await _beat(wire)


async def test_no_call_is_made_before_the_server_has_sent_its_settings() -> None:
    heard = bytearray()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65536))
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    wire = LightGrpcWire(f"127.0.0.1:{port}", _VERSION, b"key", Tally())

    with pytest.raises(Unavailable, match="closed by the server"):
        await _beat(wire)

    assert heard.startswith(b"PRI * HTTP/2.0")
    assert b"SendNodeHeartbeat" not in heard
    listener.close()


async def test_a_call_that_does_not_fit_into_a_frame_is_not_made() -> None:
    with pytest.raises(ValueError, match="one frame"):
        await Http2Connection().call(b"", bytes(20_000))


def test_header_fields_are_read_as_they_were_written() -> None:
    fields = (("grpc-status", str(OK)), ("grpc-message", "x" * 300), ("empty", ""))

    assert decode_fields(encode_fields(fields)) == dict(fields)
    # A change of the table size, an indexed ":status: 200", a literal field with an indexed name.
    assert decode_fields(b"\x20\x88\x5f\x01a" + encode_fields(fields)) == {
        "static 31": "a",
        **dict(fields),
    }
    with pytest.raises(ValueError, match="not to be used"):
        decode_fields(b"\xbe")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "HELD_SECONDS", 0.2)
    monkeypatch.setattr(loadgen, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr("random.uniform", lambda low, high: low)


@pytest.fixture
async def generator(server: Server, quick: None) -> AsyncIterator[Generator]:
    one = Generator(GRPC, _VERSION, server.address, None, 3, 0, light=True)
    await one.join()
    await one.prepare_return()
    while not all(node.online_since(time.monotonic()) for node in one._nodes):
        await asyncio.sleep(0.02)
    yield one
    await one.leave()


async def test_nodes_come_back_on_new_connections_through_refusals(
    server: Server, generator: Generator
) -> None:
    code = grpc.StatusCode
    server.answers["PullMessages"] = [code.UNAVAILABLE] * 2
    server.answers["SendNodeHeartbeat"] = [code.UNAVAILABLE]

    answer: Any = await generator.reconnect(_SOON)

    assert len(answer["online"]) == 3
    assert answer["dead"] == []
    assert answer["turned_away"] == {
        "PullMessages UNAVAILABLE too many calls": 2,
        "SendNodeHeartbeat UNAVAILABLE too many calls": 1,
    }
    assert generator._tally.connections == 6


async def test_a_node_that_hears_what_ends_a_stock_node_is_dead(
    server: Server, generator: Generator
) -> None:
    server.answers["PullMessages"] = [grpc.StatusCode.CANCELLED]

    answer: Any = await generator.reconnect(_SOON)

    assert len(answer["online"]) == 2
    assert len(answer["dead"]) == 1
    assert "PullMessages: code 1" in answer["dead"][0]


async def test_a_node_is_not_online_while_its_poll_or_its_heartbeat_is_missing(
    server: Server, generator: Generator
) -> None:
    for method in ("SendNodeHeartbeat", "PullMessages"):
        server.answers.clear()
        server.answers[method] = [grpc.StatusCode.UNAVAILABLE] * 100_000

        answer: Any = await generator.reconnect(0.5)

        assert answer["online"] == []
        assert answer["dead"] == []


def test_what_nodes_say_of_their_return_becomes_a_line() -> None:
    line = Reconnect("reconnect", "3 nodes", (Ceiling(30.0, "seconds"),), nodes=3)
    said = {"online": [1.0, 2.0, 29.0], "dead": [], "turned_away": {}, "cut": 0.1}
    back, few, dead = Cell(server_cpu=[4.0]), Cell(server_cpu=[4.0]), Cell(server_cpu=[4.0])

    line.take({**said, "late_heartbeats": 0}, back)
    line.take({**said, "late_heartbeats": 2, "online": [1.0], "turned_away": {"Pull 503": 9}}, few)
    line.take({**said, "late_heartbeats": 0, "online": [1.0, 2.0], "dead": ["CANCELLED"]}, dead)

    assert describe(back) == "29.00 s (n=1), CPU 4.00 s"
    assert "3 of 3 online" in back.notes
    assert "half online after 2.00 s" in back.notes
    assert describe(few) == "not done after 90 s"
    assert "turned away 9 × Pull 503" in details("reconnect", few)
    assert "2 of 3 nodes not online" in details("reconnect", few)
    assert describe(dead) == "not done after 90 s, 1 nodes DEAD"
    met = [verdicts(line, {FlowerNats.name: cell})[0].met for cell in (back, few, dead)]
    assert met == [True, False, False]


def test_no_more_nodes_reconnect_than_the_system_has_files_for() -> None:
    for wire in (GRPC, HTTP):
        full, quick = (
            next(line for line in plan[wire] if isinstance(line, Reconnect))
            for plan in (FULL, QUICK)
        )
        assert full.nodes == min(5000, allowed_files() // 3)
        assert quick.nodes == 200
        assert full.title == f"{full.nodes:,} nodes reconnect within a second"
