"""A run's log is read completely, in order and once, also a long log over a slow line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection, NoRoom, Record
from flower_nats.broker.requests import Requests
from flower_nats.broker.runlog import RECORD_BYTES, RunLogs
from flower_nats.broker.streams import ensure_streams
from flower_nats.embedded.nats_cluster import NatsCluster
from flower_nats.embedded.nats_server import NatsServer
from harness.children import PATIENCE

RUN, OTHER = 1, 2
MANY = 2000
ONE_WAY = 0.03
"""Seconds: with one request for each line, a read would take two minutes."""


def lines(begin: int, end: int) -> list[str]:
    return [f"line {number} of a run that prints all the time\n" for number in range(begin, end)]


async def store(connection: Connection, *texts: str, run_id: int = RUN) -> None:
    """Store each text as one record, in this order."""
    for at in range(0, len(texts), 200):
        await asyncio.gather(
            *(
                # With a message id, a repeated store on a busy machine counts once.
                connection.store(subjects.log(run_id), text.encode(), message_id=uuid4().hex)
                for text in texts[at : at + 200]
            )
        )


async def read_to_end(logs: RunLogs, after: int = 0) -> list[str]:
    """Return the text of each read, until a read is empty."""
    texts: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            text, after = await logs.read(RUN, after)
            if not text:
                return texts
            texts.append(text)


@asynccontextmanager
async def far_away(url: str) -> AsyncIterator[Connection]:
    """Connect over a line with a delay of `ONE_WAY` seconds."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(256 * 1024):
            loop.call_later(ONE_WAY, writer.write, data)
        loop.call_later(ONE_WAY, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there = await asyncio.open_connection(parts.hostname, parts.port)
            await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    login = parts.netloc.rpartition("@")[0]
    connection = await Connection.connect([f"nats://{login}@127.0.0.1:{port}"], "far away")
    try:
        yield connection
    finally:
        await connection.close()
        server.close()


def lose(monkeypatch: pytest.MonkeyPatch, *, every: int) -> None:
    """Lose one of every so many messages of a bulk read."""
    on_answer, count = Requests._on_answer, 0

    async def on_some_answers(self: Requests, message: Msg) -> None:
        nonlocal count
        count += "Nats-Num-Pending" in (message.headers or {})
        if "Nats-Num-Pending" not in (message.headers or {}) or count % every:
            await on_answer(self, message)

    monkeypatch.setattr(Requests, "_on_answer", on_some_answers)


async def test_a_log_of_many_lines_is_read_over_a_long_way(
    connection: Connection, nats_url: str
) -> None:
    for begin in range(0, MANY, 500):
        await store(connection, *lines(begin, begin + 500))
        await store(connection, "another run\n", run_id=OTHER)

    async with far_away(nats_url) as reading:
        texts = await read_to_end(RunLogs(reading))

    assert "".join(texts) == "".join(lines(0, MANY))


async def test_a_log_of_large_pieces_is_handed_on_batch_by_batch(connection: Connection) -> None:
    pieces = [f"{number:02}" * 500_000 for number in range(20)]
    for piece in pieces:
        await store(connection, piece)

    texts = await read_to_end(RunLogs(connection))

    assert "".join(texts) == "".join(pieces)
    assert max(map(len, texts)) <= 10_000_000


@dataclass
class Call:
    """A call with log lines, which is not a repetition."""

    request_id: str
    headers: dict[str, str] = field(default_factory=dict)

    def may_repeat(self, _earlier: Record) -> bool:
        return False


async def test_what_is_printed_at_once_is_read_in_answers_as_small_as_there_is_room_for(
    connection: Connection,
) -> None:
    printed = "".join(f"{number:09}" for number in range(400_000))
    await RunLogs(connection).append(RUN, printed, Call(uuid4().hex))

    first, _ = await RunLogs(connection).read(RUN, 0, 1)

    assert 0 < len(first) <= RECORD_BYTES
    assert "".join(await read_to_end(RunLogs(connection))) == printed


async def test_a_log_is_read_in_order_and_once_while_it_grows(connection: Connection) -> None:
    logs, text, position = RunLogs(connection), "", 0
    writing = asyncio.create_task(store(connection, *lines(0, MANY)))
    async with asyncio.timeout(PATIENCE):
        while len(text) < len("".join(lines(0, MANY))):
            more, position = await logs.read(RUN, position)
            text += more
    await writing

    assert text == "".join(lines(0, MANY))
    assert await logs.read(RUN, position) == ("", position)


@pytest.mark.parametrize("every", [1, 2, 97])
async def test_lines_that_are_lost_on_their_way_are_read_again(
    nats_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    await store(connection, *lines(0, MANY))
    lose(monkeypatch, every=every)
    reading = await Connection.connect([nats_url], "reading")
    try:
        assert "".join(await read_to_end(RunLogs(reading))) == "".join(lines(0, MANY))
    finally:
        await reading.close()


async def test_what_is_there_does_not_wait_for_what_comes_slowly(
    connection: Connection, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(connection, *lines(0, MANY))
    lose(monkeypatch, every=1)
    async with far_away(nats_url) as reading, asyncio.timeout(PATIENCE):
        first, position = await RunLogs(reading).read(RUN, 0)
        second, _ = await RunLogs(reading).read(RUN, position)

    assert first and second
    assert "".join(lines(0, MANY)).startswith(first + second)


class Limited(NatsServer):
    """A server with an account that may store a megabyte."""

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        config["accounts"]["FLOWER"]["jetstream"] = {"max_file": 1_000_000}
        return config


async def test_a_log_is_replaced_though_the_account_has_no_room(data_dir: Path) -> None:
    server = Limited(data_dir)
    connection = await Connection.connect([await server.start()], "test")
    try:
        await ensure_streams(connection)
        for size in (10_000, 100, 1):
            with pytest.raises(NoRoom, match="limits exceeded"):
                while True:
                    await connection.store(subjects.log(RUN), b"x" * size, await_room=False)

        await RunLogs(connection).replace(RUN, "removed\n")

        assert await read_to_end(RunLogs(connection)) == ["removed\n"]
        await store(connection, "x" * 10_000, run_id=OTHER)
    finally:
        await connection.close()
        await server.stop()


async def test_every_server_of_a_cluster_gives_lines_as_soon_as_they_are_stored(
    data_dir: Path,
) -> None:
    cluster = NatsCluster(data_dir)
    connections: list[Connection] = []
    try:
        await cluster.start()
        connections = [await Connection.connect([url], "test") for url in cluster.urls]
        await ensure_streams(connections[0])
        for number, connection in enumerate(connections, 1):
            begin = (number - 1) * 100
            await store(connection, *lines(begin, begin + 100))
            for reading in connections:
                texts = await read_to_end(RunLogs(reading))
                assert "".join(texts) == "".join(lines(0, number * 100))
    finally:
        for connection in connections:
            await connection.close()
        await cluster.stop()
