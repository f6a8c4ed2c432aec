"""Logs of runs that ended long ago are removed once, and a line in them says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.pushers import Pushers
from flower_nats.broker.runlog import RunLogs
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.runs import Runs
from flower_nats.superlink import wiring
from flower_nats.superlink.housekeeping.log_retention import LogRetention
from flower_nats.wire import runtime_pb2 as runtime
from harness.children import PATIENCE
from harness.clients import ServerApp
from tests.integration.gateways import Gateway, running_stack

DAYS = 90


@pytest.fixture
async def gateway(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Gateway]:
    # Only the tests themselves remove logs.
    async with running_stack(nats_url, pg_dsn, superlink={"log_retention": 0}) as gateway:
        yield gateway


@dataclass
class Logs:
    """Runs with logs, read through a gateway."""

    gateway: Gateway

    def retention(self) -> LogRetention:
        """Return the log retention of a replica."""
        superlink = self.gateway.superlink
        return LogRetention(superlink.database, RunLogs(superlink.connection), DAYS)

    async def run(self, *lines: str) -> ServerApp:
        """Start a run that logs."""
        app = await self.gateway.server_app()
        if lines:
            await app.call("PushLogs", runtime.PushLogsRequest(run_id=app.run_id, logs=lines))
        return app

    async def age(self, app: ServerApp, days: float, *, finished: bool = True) -> None:
        """Move the start and the end of a run so many days into the past."""
        if finished:
            await app.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="completed"))
        for statement in (
            "UPDATE run SET created_at = created_at - make_interval(secs => %(age)s) "
            "WHERE run_id = %(run)s",
            "UPDATE task SET finished_at = finished_at - make_interval(secs => %(age)s) "
            "WHERE run_id = %(run)s",
        ):
            await self.gateway.superlink.database.execute(
                statement, age=days * 86400.0, run=app.run_id
            )

    async def read(self, app: ServerApp) -> str:
        return await self.gateway.log_of(app.run_id)

    async def stored(self, app: ServerApp) -> int:
        """Return the number of messages in a run's log."""
        connection, after, count = self.gateway.superlink.connection, 0, 0
        subject = subjects.log(app.run_id)
        while record := await connection.next(subjects.LOGS_STREAM, subject, after):
            after, count = record.sequence, count + 1
        return count


@pytest.fixture
def logs(gateway: Gateway) -> Logs:
    return Logs(gateway)


@asynccontextmanager
async def full(connection: Connection) -> AsyncIterator[None]:
    """Limit the stream of logs to its present size."""

    async def limit(size: int) -> None:
        config = {**info["config"], "max_bytes": size}
        name = f"$JS.API.STREAM.UPDATE.{subjects.LOGS_STREAM}"
        answer = await connection.ask(name, json.dumps(config).encode())
        assert "error" not in json.loads(answer.data)

    info = await connection.info(subjects.LOGS_STREAM)
    await limit(info["state"]["bytes"])
    try:
        yield
    finally:
        await limit(-1)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.1)


async def test_the_log_of_a_run_that_ended_long_ago_is_removed_and_says_so(logs: Logs) -> None:
    old, recent, long_one = [await logs.run("a\n", "b\n") for _ in range(3)]
    await logs.age(old, DAYS + 1)
    await logs.age(recent, DAYS - 1)
    await logs.age(long_one, DAYS + 1, finished=False)

    await logs.retention().remove_logs()

    text = await logs.read(old)
    assert "a\n" not in text
    assert "removed" in text and "90 days" in text and text.endswith("\n")
    assert await logs.read(recent) == "a\nb\n"
    await long_one.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="completed"))
    assert await logs.read(long_one) == "a\nb\n"


async def test_a_log_is_removed_once_whichever_replicas_do_it(logs: Logs) -> None:
    apps = [await logs.run(*("line\n" for _ in range(20))) for _ in range(3)]
    silent = await logs.run()
    for app in (*apps, silent):
        await logs.age(app, DAYS + 1)

    await asyncio.gather(*(logs.retention().remove_logs() for _ in range(4)))

    assert [await logs.stored(app) for app in apps] == [1, 1, 1]
    assert await logs.stored(silent) == 0
    # A replica died after the removal, before it had noted the removal.
    await logs.gateway.superlink.database.execute("UPDATE run SET log_removed_at = NULL")
    before = await logs.read(apps[0])
    await logs.retention().remove_logs()
    assert await logs.read(apps[0]) == before
    assert await logs.stored(apps[0]) == 1
    assert await Runs(logs.gateway.superlink.database).with_old_logs(DAYS) == []


async def test_old_logs_are_removed_when_there_is_no_room_for_more(
    connection: Connection, logs: Logs
) -> None:
    short, long = await logs.run("a\n"), await logs.run("b\n")
    for _ in range(20):
        await long.call("PushLogs", runtime.PushLogsRequest(run_id=long.run_id, logs=["c\n"]))
    recent = await logs.run("d\n")
    for app in (short, long):
        await logs.age(app, DAYS + 1)
    with capture_logs() as said:
        async with full(connection), asyncio.timeout(PATIENCE):
            await logs.retention().remove_logs()
            await recent.call(
                "PushLogs", runtime.PushLogsRequest(run_id=recent.run_id, logs=["e\n"])
            )

    assert await logs.stored(short) == 0
    without = [one["run_id"] for one in said if one["event"] == "log_removed_without_notice"]
    assert without == [short.run_id]
    assert await logs.stored(long) == 1 and "removed" in await logs.read(long)
    await logs.age(recent, 0)
    assert await logs.read(recent) == "d\ne\n"
    assert await Runs(logs.gateway.superlink.database).with_old_logs(DAYS) == []


async def test_replicas_that_make_room_at_once_leave_no_lines(
    connection: Connection, logs: Logs
) -> None:
    apps = [await logs.run("a\n") for _ in range(4)]
    for app in apps:
        await app.call("PushLogs", runtime.PushLogsRequest(run_id=app.run_id, logs=["b\n"]))
        await logs.age(app, DAYS + 1)

    async with full(connection), asyncio.timeout(PATIENCE):
        await asyncio.gather(*(logs.retention().remove_logs() for _ in range(4)))

    for app in apps:
        text = await logs.read(app)
        assert await logs.stored(app) <= 1 and "a\n" not in text and "b\n" not in text


async def test_a_superlink_removes_old_logs_by_itself(
    connection: Connection, nats_url: str, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "_REMOVE_LOGS_EVERY", 0.2)
    async with running_stack(nats_url, pg_dsn) as gateway:
        logs = Logs(gateway)
        old = await logs.run("a\n", "b\n")
        await logs.age(old, DAYS + 1)

        async def is_removed() -> bool:
            return "removed" in await logs.read(old)

        await until(is_removed)


async def test_without_a_retention_logs_stay_for_ever(gateway: Gateway) -> None:
    superlink = gateway.superlink
    for days, kept in ((0, True), (1, False)):
        settings = SuperlinkSettings(nats=(), database="", log_retention=days)
        watched = wiring.watches(settings, superlink.database, superlink.connection)
        pieces = wiring.pieces(
            settings, superlink.database, superlink.connection, watched, Pushers()
        )
        assert ("logs" not in {piece.name for piece in pieces}) is kept
