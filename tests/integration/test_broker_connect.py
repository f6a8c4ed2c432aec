"""A broker that does not answer: connections and questions to it fail, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient, RpcServer
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.model.caller import Caller
from flower_nats.model.errors import Unavailable
from harness.environment import free_port


async def test_connecting_gives_up_after_its_patience() -> None:
    with pytest.raises(Unavailable, match="no NATS server answers: ConnectionRefusedError"):
        await Connection.connect([f"nats://127.0.0.1:{free_port()}"], "test", patience=0.5)


async def test_a_wrong_password_is_named(nats_url: str) -> None:
    address = nats_url.rpartition("@")[2]

    with pytest.raises(Unavailable, match="Authorization Violation"):
        await Connection.connect([f"nats://flower:guess@{address}"], "test", patience=0.5)


async def test_leaving_does_not_wait_for_a_server_that_hangs(data_dir: Path) -> None:
    server = NatsServer(data_dir)
    connection = await Connection.connect([await server.start()], "test")
    await connection.subscribe("fn.wake.>", _ignore)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        closing = asyncio.create_task(connection.close())
        # `asyncio.timeout` could not end a task that ignores its cancellation.
        done, _ = await asyncio.wait([closing], timeout=60)
        assert done
    finally:
        os.kill(server.pid, signal.SIGCONT)
        await server.stop()


async def test_leaving_ends_the_search_for_a_server_though_its_cancellation_is_lost(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = NatsServer(data_dir)
    connection = await Connection.connect([await server.start()], "test")
    await server.stop()
    while not (searching := _named("_attempt_reconnect")):
        await asyncio.sleep(0.01)
    # Python 3.11 sometimes loses a cancellation. Here the driver has no task to cancel.
    monkeypatch.setattr(connection._client, "_reconnection_task", None)

    await connection.close()

    done, _ = await asyncio.wait(searching, timeout=60)
    assert done == searching


def _named(coroutine: str) -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if coroutine in repr(task.get_coro())}


async def _ignore(_: Msg) -> None:
    pass


class Link:
    """A line to a broker that the test can cut for a while."""

    def __init__(self, url: str) -> None:
        login, _, self._broker = url.rpartition("@")
        self._port = free_port()
        self.url = f"{login}@127.0.0.1:{self._port}"
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._broker.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self._writers += [writer, far_writer]
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_what_was_given_up_is_not_asked_when_the_broker_is_back(nats_url: str) -> None:
    """Otherwise a run would start after `flwr run` has reported its failure."""
    heard: list[bytes] = []

    async def serve(body: bytes, _caller: Caller) -> bytes:
        heard.append(body)
        return b""

    link = Link(nats_url)
    await link.mend()
    asking = await Connection.connect([link.url], "asking")
    serving = await Connection.connect([nats_url], "serving")
    try:
        await RpcServer(serving, {("Control", "StartRun"): serve}).start()
        rpc = RpcClient(asking)
        await rpc.call("Control", "StartRun", b"before")

        await link.cut()
        with pytest.raises(Unavailable):
            await rpc.call("Control", "StartRun", b"meanwhile", patience=1.0)
        await link.mend()
        await rpc.call("Control", "StartRun", b"after")
    finally:
        await asking.close()
        await serving.close()
        await link.cut()

    assert heard == [b"before", b"after"]
