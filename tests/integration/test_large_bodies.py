"""Requests and answers that are too large for one NATS message, against a real broker."""

from collections.abc import AsyncIterator

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient, RpcServer
from flower_nats.broker.streams import ensure_streams
from flower_nats.model.caller import Caller
from harness.waiting import until

LARGE = bytes(range(256)) * 8192
SUPERLINK = ("Internal", "Echo")


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[RpcClient]:
    connection = await Connection.connect([nats_url], "client")
    yield RpcClient(connection)
    await connection.close()


@pytest.fixture
async def server(connection: Connection) -> AsyncIterator[RpcServer]:
    async def echo(body: bytes, _caller: Caller) -> bytes:
        return body

    server = RpcServer(connection, {SUPERLINK: echo})
    await server.start()
    yield server
    await server.drain()


async def test_a_large_body_goes_there_and_back_and_leaves_nothing(
    connection: Connection, client: RpcClient, server: RpcServer
) -> None:
    assert await client.call(*SUPERLINK, LARGE) == LARGE

    async def is_gone() -> bool:
        return not await connection.subjects(subjects.BLOBS_STREAM, subjects.BLOBS_SUBJECTS)

    await until(is_gone)


async def test_an_answer_counts_even_if_its_request_cannot_be_cleared_away(
    connection: Connection, client: RpcClient
) -> None:
    async def answer_and_lose_the_stream(_body: bytes, _caller: Caller) -> bytes:
        await connection.ask(f"$JS.API.STREAM.DELETE.{subjects.BLOBS_STREAM}", b"")
        return b"done"

    server = RpcServer(connection, {SUPERLINK: answer_and_lose_the_stream})
    await server.start()
    try:
        assert await client.call(*SUPERLINK, LARGE) == b"done"
    finally:
        await ensure_streams(connection)
        await server.drain()
