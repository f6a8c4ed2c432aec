"""A run's log over HTTP, where the end of a stream means the end of the log and of the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.transports.http import app as http_app
from harness.channels import HttpChannel, Refused
from harness.children import PATIENCE
from harness.clients import ServerApp
from harness.raw_http import Connection as RawConnection
from harness.raw_http import connect, head_of
from tests.integration.gateways import (
    Gateway,
    refusal,
    running_gateway,
    running_pair,
    running_stack,
)

OUTPUT = runtime.PushTaskOutputRequest(sub_status="completed")
PUSH_LOGS = BY_NAME[("Runtime", "PushLogs")]


@pytest.fixture
async def gateway(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, "http") as gateway:
        yield gateway


async def say(app: ServerApp, *lines: str) -> None:
    await app.call("PushLogs", runtime.PushLogsRequest(logs=lines))


class Follower:
    """A client like `flwr log --stream`."""

    def __init__(self, gateway: Gateway, run_id: int) -> None:
        self.frames: list[str] = []
        self._task = asyncio.create_task(self._follow(gateway, run_id))

    async def _follow(self, gateway: Gateway, run_id: int) -> None:
        async with aclosing(gateway.follow(run_id)) as answers:
            async for answer in answers:
                self.frames.append(answer.log_output)

    @property
    def text(self) -> str:
        return "".join(self.frames)

    async def until(self, text: str) -> None:
        """Wait until the client has printed exactly this text."""
        async with asyncio.timeout(PATIENCE):
            while self.text != text and not self._task.done():
                await asyncio.sleep(0.02)
        assert self.text == text

    async def until_end(self) -> None:
        """Wait until the stream has ended in good order. Raises `Refused` if it breaks."""
        async with asyncio.timeout(PATIENCE):
            await self._task

    @property
    def has_ended(self) -> bool:
        return self._task.done()


# The end of a stream


async def test_a_stream_ends_with_its_run_and_has_every_line(gateway: Gateway) -> None:
    app = await gateway.server_app()
    follower = Follower(gateway, app.run_id)
    for number in range(5):
        await say(app, f"line {number}\n")
        await follower.until("".join(f"line {at}\n" for at in range(number + 1)))
    await app.call("PushTaskOutput", OUTPUT)

    await follower.until_end()
    assert follower.text == "".join(f"line {number}\n" for number in range(5))
    assert await gateway.log_of(app.run_id) == follower.text


async def test_a_stream_of_a_gateway_that_ends_breaks(gateway: Gateway, nats_url: str) -> None:
    """A client would take an orderly end for the end of the log and of the run."""
    app = await gateway.server_app()
    async with running_gateway(gateway.superlink, nats_url, "http") as leaving:
        follower = Follower(leaving, app.run_id)
        await say(app, "before\n")
        await follower.until("before\n")

        leaving.stop.set()
        with pytest.raises(Refused):
            await follower.until_end()
    assert follower.text == "before\n"


async def test_a_stream_outlasts_a_broker_that_is_away(tmp_path: Path, pg_dsn: str) -> None:
    server = NatsServer(tmp_path / "nats")
    url = await server.start()
    try:
        async with running_stack(url, pg_dsn, "http") as gateway:
            app = await gateway.server_app()
            follower = Follower(gateway, app.run_id)
            await say(app, "before\n")
            await follower.until("before\n")

            await server.stop()
            await asyncio.sleep(3)
            assert not follower.has_ended
            await server.start()
            await say(app, "after\n")

            await follower.until("before\nafter\n")
            await app.call("PushTaskOutput", OUTPUT)
            await follower.until_end()
    finally:
        await server.stop()


async def test_a_run_that_is_not_known_is_refused_before_a_stream_begins(gateway: Gateway) -> None:
    refused = await refusal(gateway.log_of(12345))
    assert (refused.outcome, refused.code) == (Outcome.NOT_FOUND, 16)

    body = control.StreamLogsRequest(run_id=12345).SerializeToString()
    async with await connect(gateway.address("Control")) as one:
        await one.send(head_of("Control", "StreamLogs", (), len(body)), body)
        answer = await one.answer()
    assert (answer.status, answer.said["code"]) == (404, 16)
    assert answer.headers["content-type"] == "application/json"


# Signs of life


async def test_signs_of_life_come_once_there_was_something_to_say(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flwr log --show` takes the first message for the whole log."""
    monkeypatch.setattr(http_app, "_SIGN_OF_LIFE", 0.1)
    monkeypatch.setattr(http_app, "_FIRST_MESSAGE", 0.1)
    app = await gateway.server_app()
    follower = Follower(gateway, app.run_id)
    await asyncio.sleep(1)
    assert follower.frames == []

    await say(app, "something\n")
    async with asyncio.timeout(PATIENCE):
        while len(follower.frames) < 5:
            await asyncio.sleep(0.05)

    assert follower.frames[0] == "something\n"
    assert set(follower.frames[1:]) == {""}


async def test_a_stream_that_has_nothing_to_say_begins_all_the_same(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients wait 30 s for the head of an answer. After the head they wait for ever."""
    monkeypatch.setattr(http_app, "_FIRST_MESSAGE", 0.1)
    app = await gateway.server_app()
    body = control.StreamLogsRequest(run_id=app.run_id).SerializeToString()
    async with await connect(gateway.address("Control")) as one:
        await one.send(head_of("Control", "StreamLogs", (), len(body)), body)
        async with asyncio.timeout(PATIENCE):
            head = await one.reader.readuntil(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"application/flower-protobuf-stream" in head


# Lines, once


async def push_over_a_new_connection(gateway: Gateway, app: ServerApp, line: str) -> None:
    channel = HttpChannel(gateway.address("Runtime"))
    body = runtime.PushLogsRequest(logs=[line]).SerializeToString()
    await channel.unary(PUSH_LOGS, body, [("flwr-task-token", app.token)])
    await channel.close()


async def test_a_line_that_is_printed_again_is_there_again_whatever_connection_it_comes_over(
    nats_url: str, pg_dsn: str, connection: Connection
) -> None:
    async with running_pair(nats_url, pg_dsn, "http") as (first, second):
        app = await first.server_app()
        for gateway in (first, first, second, second, first):
            await push_over_a_new_connection(gateway, app, "the same\n")
        await app.call("PushTaskOutput", OUTPUT)

        assert await first.log_of(app.run_id) == "the same\n" * 5


async def test_a_line_that_a_gateway_has_stored_and_not_answered_is_there_once(
    gateway: Gateway, connection: Connection
) -> None:
    """The client repeats its call after the death of the gateway."""
    app = await gateway.server_app()
    await say(app, "before\n")
    # A gateway that dies at this moment leaves this line.
    of_dead = {"Fn-Task": str(app.task_id), "Fn-Connection": ""}
    await connection.store(subjects.log(app.run_id), b"stored\n", headers=of_dead)

    await say(app, "stored\n", "and more\n")
    await say(app, "and more\n")

    await app.call("PushTaskOutput", OUTPUT)
    assert await gateway.log_of(app.run_id) == "before\nstored\nand more\nand more\n"


# The end of a run


@pytest.mark.parametrize(
    ("hang_up", "size"), [(RawConnection.close, 200_000), (RawConnection.reset, 10)]
)
async def test_the_output_of_a_process_that_is_gone_at_once_is_stored(
    gateway: Gateway, nats_url: str, hang_up: Callable[[RawConnection], None], size: int
) -> None:
    """Processes of flwr 1.35 and newer always end a few seconds after their app."""
    apps = [await gateway.server_app() for _ in range(5)]
    # A gateway that does not know these tasks, and must ask before it reads a body.
    async with running_gateway(gateway.superlink, nats_url, "http") as other:
        for app in apps:
            output = runtime.PushTaskOutputRequest(sub_status="completed", details="d" * size)
            body, token = output.SerializeToString(), [("flwr-task-token", app.token)]
            async with await connect(other.address("Runtime")) as one:
                await one.send(head_of("Runtime", "PushTaskOutput", token, len(body)) + body)
                hang_up(one)
        async with asyncio.timeout(PATIENCE):
            for app in apps:
                while (await gateway.superlink.status(app.run_id))[0] != "finished":
                    await asyncio.sleep(0.05)

    assert {(await gateway.superlink.status(app.run_id))[1] for app in apps} == {"completed"}
