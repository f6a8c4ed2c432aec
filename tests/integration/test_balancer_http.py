"""The balancer over HTTP: a fault behind it is a 503 in time, or is not noticed at all.

Stock clients die of 500, and many versions of 502. They give up after 30 s without an answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.embedded.process import OwnedProcess
from flower_nats.settings import TlsFiles
from flower_nats.wire.methods import BY_NAME
from tests.e2e.certificates import create_server_certificates
from tests.harness.environment import accepts_connections
from tests.integration.gateways import free_address
from tests.integration.test_balancer import kill, until, upstream

GET_NODES = BY_NAME[("Runtime", "GetNodes")]
PULL_MESSAGES = BY_NAME[("Fleet", "PullMessages")]
STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]

CLIENT_SECONDS = 30.0
"""What a stock client waits for an answer."""


CLIENT_KEEPS = 5.0
"""How long it keeps a connection that it does not use."""


@dataclass
class Front:
    """A balancer with a port for HTTP and one for each API over gRPC, and two gateways behind it."""

    balancer: Balancer
    upstreams: list[OwnedProcess]
    addresses: dict[str, str]
    client: httpx.AsyncClient
    scheme: str

    def url(self, path: str, port: str = "http") -> str:
        return f"{self.scheme}://{self.addresses[port]}{path}"

    async def call(
        self, body: bytes, path: str = GET_NODES.http_path, port: str = "http"
    ) -> httpx.Response:
        return await self.client.post(self.url(path, port), content=body)

    async def serving_pid(self) -> int:
        return int((await self.call(b"who")).content.split()[0])


@asynccontextmanager
async def front(
    directory: Path, tls: TlsFiles | None = None, *, gateways: int = 2, **more: Any
) -> AsyncIterator[Front]:
    names = ("http", "serverappio", "fleet", "control")
    listen = {name: free_address() for name in names}
    pairs = [(free_address(), free_address()) for _ in range(gateways)]
    upstreams = [upstream(directory, *pair) for pair in pairs]
    over_grpc, over_http = ([pair[n] for pair in pairs] for n in (0, 1))
    apis = [
        Api(name, listen[name], over_http if name == "http" else over_grpc, tls) for name in names
    ]
    balancer = Balancer(directory / "balancer", apis)
    verify: Any = True
    if tls is not None:
        verify = ssl.create_default_context(cafile=str(tls.ca_certificate))
    scheme = "http" if tls is None else "https"
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=CLIENT_SECONDS, verify=verify, limits=limits) as client:
        try:
            for one in upstreams:
                await one.start()
            await until(lambda: all(accepts_connections(one) for pair in pairs for one in pair))
            await balancer.start()
            yield Front(balancer, upstreams, listen, client, scheme)
        finally:
            await balancer.stop()
            for one in upstreams:
                await one.stop()


def certificates(folder: Path) -> TlsFiles:
    made = create_server_certificates(folder)
    return TlsFiles(made.certificate, made.key, made.ca_certificate)


@pytest.mark.parametrize(
    ("api", "name"), [("Runtime", "PushTaskOutput"), ("Fleet", "PullMessages")]
)
async def test_a_call_in_hand_of_a_gateway_that_is_killed_is_made_at_another(
    tmp_path: Path, api: str, name: str
) -> None:
    async with front(tmp_path) as there:
        victim, path = there.upstreams[0].pid, BY_NAME[(api, name)].http_path

        # Which one gets a call is chance: the victim dies of it, the other one answers.
        answers = [await there.call(f"die {victim}".encode(), path) for _ in range(15)]

        await until(lambda: there.upstreams[0].exit_code() is not None)
    assert {one.status_code for one in answers} == {200}
    assert {int(one.content.split()[0]) for one in answers} == {there.upstreams[1].pid}


async def test_held_calls_move_when_their_gateway_is_killed(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        calls = [
            asyncio.create_task(there.call(b"hold 1.5", PULL_MESSAGES.http_path)) for _ in range(50)
        ]
        await asyncio.sleep(0.5)
        kill(there.upstreams[0])

        answers = await asyncio.gather(*calls)

    assert {int(one.content.split()[0]) for one in answers} == {there.upstreams[1].pid}


async def test_calls_of_a_gateway_that_hangs_are_answered_before_their_clients_give_up(
    tmp_path: Path,
) -> None:
    async with front(tmp_path) as there:
        calls = [asyncio.create_task(there.call(b"hold 1.5")) for _ in range(20)]
        await asyncio.sleep(0.5)
        os.kill(there.upstreams[0].pid, signal.SIGSTOP)

        answers = await asyncio.gather(*calls)

    assert {one.status_code for one in answers} == {200}
    assert {int(one.content.split()[0]) for one in answers} == {there.upstreams[1].pid}


async def test_a_farewell_to_a_gateway_that_hangs_is_heard_while_its_process_lives(
    tmp_path: Path,
) -> None:
    """A ServerApp has up to four seconds for its last call."""
    path = BY_NAME[("Runtime", "PushTaskOutput")].http_path
    async with front(tmp_path) as there:
        os.kill(there.upstreams[0].pid, signal.SIGSTOP)

        async with asyncio.timeout(4.0):
            answers = await asyncio.gather(*(there.call(b"who", path) for _ in range(10)))

    assert {int(one.content.split()[0]) for one in answers} == {there.upstreams[1].pid}


async def test_a_farewell_that_takes_a_gateway_longer_is_answered_all_the_same(
    tmp_path: Path,
) -> None:
    async with front(tmp_path) as there:
        path = BY_NAME[("Runtime", "PushTaskOutput")].http_path
        answers = await asyncio.gather(*(there.call(b"hold 4", path) for _ in range(10)))

    assert {one.status_code for one in answers} == {200}
    assert len({one.content.split()[1] for one in answers}) == 10


async def test_a_gateway_that_hangs_gets_no_more_calls(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        os.kill(there.upstreams[0].pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)

        async with asyncio.timeout(5.0):
            pids = {await there.serving_pid() for _ in range(20)}

    assert pids == {there.upstreams[1].pid}


async def test_a_large_request_is_made_again_in_full(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        body = b"die %d " % there.upstreams[0].pid + b"x" * 10_000_000
        answers = [await there.call(body) for _ in range(15)]

        await until(lambda: there.upstreams[0].exit_code() is not None)
    assert {int(one.content.split()[2]) for one in answers} == {len(body)}


@pytest.mark.parametrize("size", [100_000_000, 400_000_000])
async def test_large_bodies_arrive_in_full_both_ways(tmp_path: Path, size: int) -> None:
    async with front(tmp_path) as there:
        sent = await there.call(b"who " + b"x" * size)
        received = await there.call(b"large %d" % size)

    assert int(sent.content.split()[2]) == size + 4
    assert len(received.content) == size


async def test_attempts_at_one_call_have_one_request_id_and_calls_have_their_own(
    tmp_path: Path,
) -> None:
    async with front(tmp_path) as there:
        answers = [await there.call(b"who") for _ in range(4)]
        there.client.headers["flower-nats-request-id"] = "mine"
        answers.append(await there.call(b"who"))

    ids = {one.content.split()[1] for one in answers}
    assert len(ids) == 5
    assert b"mine" not in ids


async def test_a_connection_to_a_gateway_that_was_started_again_is_not_missed(
    tmp_path: Path,
) -> None:
    """The balancer keeps connections to gateways, and may find one closed when it needs it."""
    async with front(tmp_path, gateways=1) as there:
        for _ in range(3):
            await asyncio.gather(*(there.call(b"who") for _ in range(20)))
            kill(there.upstreams[0])
            await there.upstreams[0].wait()
            await there.upstreams[0].start()

            answers = await asyncio.gather(*(there.call(b"who") for _ in range(20)))

            assert {one.status_code for one in answers} == {200}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 500, 503])
async def test_refusals_of_a_gateway_arrive_as_they_are(tmp_path: Path, status: int) -> None:
    async with front(tmp_path) as there:
        answer = await there.call(b"fail %d" % status)

    assert (answer.status_code, answer.json()) == (status, {"detail": "no"})


async def test_without_any_gateway_a_call_is_unavailable_in_time(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        for one in there.upstreams:
            kill(one)
        began = time.monotonic()

        answers = await asyncio.gather(*(there.call(b"who") for _ in range(10)))

        assert 15.0 < time.monotonic() - began < CLIENT_SECONDS
    assert {one.status_code for one in answers} == {503}
    # What `flwr` prints.
    assert "see that gateways run" in answers[0].json()["detail"]


async def test_a_call_looks_for_a_gateway_until_one_is_there(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        for one in there.upstreams:
            kill(one)
        await until(lambda: there.upstreams[0].exit_code() is not None)
        call = asyncio.create_task(there.call(b"who"))
        await asyncio.sleep(5.0)
        await there.upstreams[0].start()

        assert (await call).status_code == 200


async def test_a_call_that_is_held_for_too_long_is_unavailable_in_time(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        began = time.monotonic()

        answer = await there.call(b"hold 60", PULL_MESSAGES.http_path)

        assert time.monotonic() - began < CLIENT_SECONDS
    assert answer.status_code == 503


HALF_ANSWERS = {
    "nothing": b"",
    "half of a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "half of a body": b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc",
    "half of a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    "no last chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
    "no HTTP": b"220 mail.example.org ESMTP\r\n",
    "too long a head": b"HTTP/1.1 200 OK\r\n" + b"x: %s\r\n" % (b"y" * 900) * 100 + b"\r\n",
}


async def test_what_is_no_whole_answer_is_unavailable(tmp_path: Path) -> None:
    listen, statuses = free_address(), {}

    async def call(client: httpx.AsyncClient, order: str) -> None:
        answer = await client.post(f"http://{listen}{GET_NODES.http_path}", content=order)
        statuses[order] = answer.status_code

    async with says_half() as gateway, httpx.AsyncClient(timeout=CLIENT_SECONDS) as client:
        balancer = Balancer(tmp_path, [Api("http", listen, [gateway], None)])
        await balancer.start()
        try:
            orders = [f"{name}, {end}" for name in HALF_ANSWERS for end in ("end", "reset")]
            await asyncio.gather(*(call(client, order) for order in orders))
        finally:
            await balancer.stop()

    assert statuses == dict.fromkeys(orders, 503)


@asynccontextmanager
async def says_half() -> AsyncIterator[str]:
    """A gateway that gives the half of an answer that a request asks for, and ends or resets the
    connection; it says that it is well."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /health "):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()
            return
        name, _, end = (await reader.read(100)).decode().partition(", ")
        writer.write(HALF_ANSWERS[name])
        await writer.drain()
        await asyncio.sleep(0.05)
        if end == "reset":
            writer.transport.abort()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def test_new_calls_go_past_a_gateway_that_is_not_ready(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        unready = int((await there.call(b"unready")).content.split()[0])
        await asyncio.sleep(2.0)

        pids = {await there.serving_pid() for _ in range(10)}

    assert unready not in pids and len(pids) == 1


async def test_the_health_of_the_gateways_is_told(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        url = there.url("/health")
        well = [await there.client.get(url), await there.client.head(url)]
        for one in there.upstreams:
            kill(one)
        began = time.monotonic()
        ill = await there.client.get(url)

        assert time.monotonic() - began < 10.0
    assert [(one.status_code, one.content) for one in well] == [(200, b"")] * 2
    assert ill.status_code == 503


async def test_a_connection_outlasts_the_time_for_which_clients_keep_it(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        host, _, port = there.addresses["http"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = b"POST /v1/runtime/get-nodes HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nwho"
        for pause in (0.0, 3 * CLIENT_KEEPS):
            await asyncio.sleep(pause)
            writer.write(request)
            assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(1000)
        writer.close()


async def test_streams_arrive_as_they_are_written_and_have_no_end(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        url = there.url(STREAM_LOGS.http_path)
        arrived = []
        async with there.client.stream("POST", url, content=b"35", timeout=60.0) as answer:
            began = time.monotonic()
            async for piece in answer.aiter_raw():
                arrived.append((piece, time.monotonic() - began))

    assert [piece for piece, _ in arrived] == [b"first", b"last"]
    assert arrived[0][1] < 2.0
    assert arrived[1][1] > CLIENT_SECONDS


async def test_a_stream_whose_gateway_dies_does_not_look_like_its_end(tmp_path: Path) -> None:
    async with front(tmp_path, gateways=1) as there:
        url = there.url(STREAM_LOGS.http_path)
        async with there.client.stream("POST", url, content=b"20") as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"first"
            kill(there.upstreams[0])

            with pytest.raises(httpx.RemoteProtocolError):
                await anext(pieces)


@pytest.mark.parametrize("with_tls", [False, True])
async def test_a_grpc_client_that_comes_to_the_http_port_is_served(
    tmp_path: Path, with_tls: bool
) -> None:
    tls = certificates(tmp_path) if with_tls else None
    async with front(tmp_path, tls) as there, grpc_channel(there.addresses["http"], tls) as channel:
        for method in BY_NAME.values():
            if not method.streams:
                for path in method.grpc_paths:
                    call: Any = channel.unary_unary(path)
                    assert int((await call(b"who", timeout=20.0)).split()[0])


@asynccontextmanager
async def grpc_channel(address: str, tls: TlsFiles | None) -> AsyncIterator[grpc.aio.Channel]:
    channel = grpc.aio.insecure_channel(address)
    if tls is not None:
        credentials = grpc.ssl_channel_credentials(tls.ca_certificate.read_bytes())
        channel = grpc.aio.secure_channel(address, credentials)
    async with channel:
        yield channel


@pytest.mark.parametrize("with_tls", [False, True])
async def test_an_http_client_that_comes_to_a_grpc_port_is_served(
    tmp_path: Path, with_tls: bool
) -> None:
    ports = {"Fleet": "fleet", "Runtime": "serverappio", "Control": "control"}
    async with front(tmp_path, certificates(tmp_path) if with_tls else None) as there:
        statuses: Counter[int] = Counter()
        for method in BY_NAME.values():
            if not method.streams:
                answer = await there.call(b"who", method.http_path, ports[method.api])
                statuses[answer.status_code] += 1

    assert set(statuses) == {200}


async def test_a_grpc_port_serves_no_other_api_and_names_the_port_that_does(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        refused = await there.call(b"who", GET_NODES.http_path, "fleet")
        async with grpc_channel(there.addresses["fleet"], None) as channel:
            call: Any = channel.unary_unary(GET_NODES.path)
            with pytest.raises(grpc.aio.AioRpcError) as unimplemented:
                await call(b"who", timeout=20.0)

    assert refused.status_code == 404
    assert "Fleet API" in refused.json()["detail"]
    assert "8000" in refused.json()["detail"]
    assert unimplemented.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_faults_over_grpc_on_the_http_port_are_unavailable(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        for one in there.upstreams:
            kill(one)
        async with grpc_channel(there.addresses["http"], None) as channel:
            call: Any = channel.unary_unary(GET_NODES.path)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"who", timeout=50.0)

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tls_ends_at_the_balancer_and_has_a_port_without_it_for_this_machine(
    tmp_path: Path,
) -> None:
    tls, listen, loopback = certificates(tmp_path), free_address(), free_address()
    grpc_address, http_address = free_address(), free_address()
    gateway = upstream(tmp_path, grpc_address, http_address)
    balancer = Balancer(
        tmp_path / "balancer", [Api("http", listen, [http_address], tls, loopback=loopback)]
    )
    try:
        await gateway.start()
        await until(lambda: accepts_connections(http_address))
        await balancer.start()
        trust = ssl.create_default_context(cafile=str(tls.ca_certificate))
        async with httpx.AsyncClient(verify=trust) as client:
            for url in (f"https://{listen}", f"http://{loopback}"):
                answer = await client.post(url + GET_NODES.http_path, content=b"who")
                assert answer.status_code == 200
    finally:
        await balancer.stop()
        await gateway.stop()


async def test_its_end_resets_a_tls_handshake_so_that_the_client_tries_again(
    tmp_path: Path,
) -> None:
    """Of the mere end of a connection in mid-handshake, stock clients over HTTP die."""
    tls = certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(tls.ca_certificate))
    async with front(tmp_path, tls, gateways=1) as there:
        host, _, port = there.addresses["http"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        handshake = context.wrap_bio(received, to_send, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            handshake.do_handshake()
        writer.write(to_send.read())
        received.write(await reader.read(65536))

        stopping = asyncio.create_task(there.balancer.stop())
        await asyncio.sleep(0.1)
        with suppress(ssl.SSLWantReadError):
            handshake.do_handshake()
        writer.write(to_send.read())

        with pytest.raises(ConnectionResetError):
            await reader.read(65536)
        await stopping
