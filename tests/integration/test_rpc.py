"""Long calls to superlinks: the serving superlink says so, and no other superlink is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from flower_nats.broker import rpc, subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.hints import Wakes
from flower_nats.broker.rpc import RpcClient, RpcServer
from flower_nats.model.caller import Caller
from flower_nats.model.errors import Unavailable
from harness.children import PATIENCE
from tests.integration.superlinks import silent_superlinks

LONG = ("Control", "StartRun")
"""A call that may take long."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the times that take seconds."""
    monkeypatch.setattr(rpc, "_FIRST_TRY", 0.5)
    monkeypatch.setattr(rpc, "_SIGN_EVERY", 0.1)


@asynccontextmanager
async def serving(
    url: str, handler: Callable[[bytes, Caller], Awaitable[bytes]]
) -> AsyncIterator[None]:
    connection = await Connection.connect([url], "server")
    server = RpcServer(connection, {LONG: handler})
    await server.start()
    yield
    await server.drain(0.1)
    await connection.close()


async def test_a_call_in_hand_is_asked_for_once(nats_url: str, connection: Connection) -> None:
    asked = 0

    async def work(body: bytes, _caller: Caller) -> bytes:
        nonlocal asked
        asked += 1
        # Longer than five tries.
        await asyncio.sleep(3.0)
        return body

    async with serving(nats_url, work), serving(nats_url, work):
        assert await RpcClient(connection).call(*LONG, b"run") == b"run"

    assert asked == 1


async def test_who_dies_with_a_call_in_hand_is_not_waited_for(
    nats_url: str, connection: Connection
) -> None:
    async def answer(_body: bytes, _caller: Caller) -> bytes:
        return b"here"

    asking = await Connection.connect([nats_url], "client")
    client, wakes = RpcClient(asking), Wakes(asking)
    wakes.on_superlink(client.note_superlink)
    await wakes.start()
    async with silent_superlinks(connection, LONG[1], LONG[0]), serving(nats_url, answer):
        # A call that waited for a silent superlink would be unavailable in the end.
        answers = await asyncio.gather(*(client.call(*LONG, b"") for _ in range(20)))

    assert answers == [b"here"] * 20
    await asking.close()


async def test_whoever_has_a_call_in_hand_knows_how_long_it_is_waited_for(
    nats_url: str, connection: Connection
) -> None:
    left, asked = 0.0, asyncio.Event()

    async def go_on_for_ever(_body: bytes, caller: Caller) -> bytes:
        nonlocal left
        left = caller.answer_by - time.monotonic()
        asked.set()
        await asyncio.sleep(60)
        return b""

    async with serving(nats_url, go_on_for_ever):
        asking = asyncio.create_task(RpcClient(connection).call(*LONG, b"", patience=30.0))
        await asked.wait()
        asking.cancel()

    assert 0 < left <= 30.1


async def test_a_gateway_that_does_not_know_signs_hears_none(
    nats_url: str, connection: Connection
) -> None:
    async def work(body: bytes, _caller: Caller) -> bytes:
        await asyncio.sleep(0.5)
        return body

    async with serving(nats_url, work):
        answer = await connection.ask(subjects.api(*LONG), b"run")

    assert answer.data == b"run"


async def test_a_superlink_that_is_busy_is_left_alone_and_another_one_is_asked(
    nats_url: str,
) -> None:
    asked_busy = 0

    async def refuse(_body: bytes, _caller: Caller) -> bytes:
        nonlocal asked_busy
        asked_busy += 1
        raise Unavailable("too much to do")

    async def answer(_body: bytes, _caller: Caller) -> bytes:
        return b"here"

    asking = await Connection.connect([nats_url], "client")
    client, wakes = RpcClient(asking), Wakes(asking)
    heard: set[str] = set()
    wakes.on_superlink(client.note_superlink)
    wakes.on_superlink(lambda superlink, _sign: heard.add(superlink))
    await wakes.start()
    async with serving(nats_url, refuse), serving(nats_url, answer):
        async with asyncio.timeout(PATIENCE):
            while len(heard) < 2:
                await asyncio.sleep(0.05)
        answers = await asyncio.gather(*(client.call(*LONG, b"") for _ in range(40)))

    assert answers == [b"here"] * 40
    # Each call has reached the busy superlink once at most.
    assert 0 < asked_busy <= 40
    await asking.close()


async def test_all_who_are_sent_away_do_not_come_back_at_once(
    nats_url: str, connection: Connection
) -> None:
    asked = 0

    async def refuse(_body: bytes, _caller: Caller) -> bytes:
        nonlocal asked
        asked += 1
        raise Unavailable("too much to do")

    client = RpcClient(connection)
    async with serving(nats_url, refuse):
        calls = [client.call(*LONG, b"", patience=2.0) for _ in range(50)]
        heard = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(one, Unavailable) for one in heard)
    # In two seconds each caller has come at most five times.
    assert asked <= 5 * 50
