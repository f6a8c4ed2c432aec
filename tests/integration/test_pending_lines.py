"""Log lines that wait to be stored, while their run ends."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.permissions import User
from flower_nats.broker.runlog import LogSource, RunLogs
from flower_nats.wire import runtime_pb2 as runtime
from harness.channels import WireName
from harness.children import PATIENCE
from harness.logins import as_user
from tests.integration.gateways import running_pair
from tests.integration.superlinks import silent_superlinks

_NOT_KNOWN_WHOSE = 0

OUTPUT = runtime.PushTaskOutputRequest(sub_status="completed")
LINES = runtime.PushLogsRequest(logs=["the last\n"])


async def test_a_run_does_not_end_before_a_gateway_knows_whose_lines_it_has(
    nats_url: str, pg_dsn: str, wire: WireName, connection: Connection
) -> None:
    waiting = asyncio.Event()

    async def hear(_hint: Msg) -> None:
        waiting.set()

    gateway = await Connection.connect([as_user(nats_url, User.GATEWAY)], "test")
    await gateway.subscribe(subjects.event_lines(_NOT_KNOWN_WHOSE), hear)
    async with running_pair(nats_url, pg_dsn, wire) as (first, second):
        app = await first.server_app()
        token = [("flwr-task-token", app.token)]
        async with silent_superlinks(connection, "ResolveToken"):
            lines = asyncio.create_task(second.call("Runtime", "PushLogs", LINES, token))
            await asyncio.wait_for(waiting.wait(), PATIENCE)
            await app.call("PushTaskOutput", OUTPUT)

            assert lines.done()
            await lines
        assert await first.log_of(app.run_id) == "the last\n"
    await gateway.close()


async def test_a_run_does_not_end_while_another_gateway_has_lines_of_it(
    nats_url: str, pg_dsn: str, wire: WireName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a balancer, clients over HTTP send lines and output over two connections."""
    free, append = asyncio.Event(), RunLogs.append

    async def append_when_free(logs: RunLogs, run_id: int, text: str, source: LogSource) -> int:
        await free.wait()
        return await append(logs, run_id, text, source)

    monkeypatch.setattr(RunLogs, "append", append_when_free)
    waiting = asyncio.Event()

    async def hear(_hint: Msg) -> None:
        waiting.set()

    gateway = await Connection.connect([as_user(nats_url, User.GATEWAY)], "test")
    async with running_pair(nats_url, pg_dsn, wire) as (first, second):
        app = await first.server_app()
        await gateway.subscribe(subjects.event_lines(app.run_id), hear)
        token = [("flwr-task-token", app.token)]
        lines = asyncio.create_task(second.call("Runtime", "PushLogs", LINES, token))
        await asyncio.wait_for(waiting.wait(), 20)
        output = asyncio.create_task(app.call("PushTaskOutput", OUTPUT))
        waiting.clear()
        await asyncio.wait_for(waiting.wait(), 20)
        assert not output.done()

        free.set()
        await asyncio.gather(output, lines)
        assert await first.log_of(app.run_id) == "the last\n"
    await gateway.close()


async def test_tokens_of_nobody_keep_no_run_from_ending(
    nats_url: str, pg_dsn: str, wire: WireName, connection: Connection
) -> None:
    async with running_pair(nats_url, pg_dsn, wire) as (first, second):
        app = await first.server_app()
        unknown = [("flwr-task-token", "0" * 64)]
        ending = asyncio.create_task(app.call("PushTaskOutput", OUTPUT))
        while not ending.done():
            await asyncio.gather(
                *(second.call("Runtime", "PushLogs", LINES, unknown) for _ in range(20)),
                return_exceptions=True,
            )

        await ending
        assert await first.superlink.status(app.run_id) == ("finished", "completed", "")
