"""The balancer over HTTP answers in time for stock clients, which give up after 30 s.

A lasting fault is a 503 by then. Clients die of 500, and many versions of 502. These tests assert
the time, because it is what the runtime promises.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from tests.integration.gateways import free_address
from tests.integration.http_front import (
    CLIENT_KEEPS,
    CLIENT_SECONDS,
    GET_NODES,
    PULL_MESSAGES,
    STREAM_LOGS,
    front,
    grpc_channel,
)
from tests.integration.test_balancer import kill

# Most tests last as long as a client waits.
pytestmark = pytest.mark.long


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


async def test_without_any_gateway_a_call_is_unavailable_in_time(tmp_path: Path) -> None:
    async with front(tmp_path) as there, grpc_channel(there.addresses["http"], None) as channel:
        for one in there.upstreams:
            kill(one)
        call: Any = channel.unary_unary(GET_NODES.path)
        over_grpc = call(b"who", timeout=50.0)

        answers = await asyncio.gather(*(there.call(b"who") for _ in range(10)))

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await over_grpc
    assert {one.status_code for one in answers} == {503}
    # `flwr` prints this.
    assert "check that the gateways run" in answers[0].json()["detail"]
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_is_held_for_too_long_is_unavailable_in_time(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        answer = await there.call(b"hold 60", PULL_MESSAGES.http_path)

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
    """A healthy gateway that sends half of an answer, and then ends or resets the connection."""

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
    assert arrived[0][1] + 10.0 < arrived[1][1]
    assert arrived[1][1] > CLIENT_SECONDS
