"""Reached limits of NATS and PostgreSQL are reported, and forgotten once there is room."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from structlog.testing import capture_logs

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection, NoRoom
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.metrics import exposition
from flower_nats.model.errors import ErrorCode
from flower_nats.room import Room, RoomTrend
from flower_nats.superlink.housekeeping.room_watch import RoomWatch
from harness.children import PATIENCE
from tests.integration.superlinks import Superlink, refused, running_superlink

LIMIT = 2_000_000
"""Bytes that the account may store."""


class Limited(NatsServer):
    """A server with an account that may store little."""

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        config["accounts"]["FLOWER"]["jetstream"] = {"max_file": LIMIT}
        return config


@pytest.fixture
async def superlink(data_dir: Path, pg_dsn: str) -> AsyncIterator[Superlink]:
    server = Limited(data_dir)
    async with running_superlink(await server.start(), pg_dsn) as superlink:
        yield superlink
    await server.stop()


async def fill(connection: Connection) -> None:
    """Fill the account, in the end with one-byte messages."""
    for size in (100_000, 1_000, 1):
        with suppress(NoRoom):
            while True:
                await connection.store(subjects.log(7), b"x" * size, await_room=False)


async def problems(superlink: Superlink) -> list[str]:
    """Return the broker's problems in the report for operators."""
    report = await superlink.command("Status")
    return [*report["not_stored"].values()]


async def test_an_account_that_is_full_is_told_of_and_forgotten(superlink: Superlink) -> None:
    connection = superlink.connection
    before = await superlink.start_run()
    await fill(connection)

    async with asyncio.timeout(PATIENCE):
        while not await problems(superlink):
            await asyncio.sleep(0.2)
    with refused(ErrorCode.NOTHING_STORED):
        await superlink.start_run()

    await connection.purge(subjects.LOGS_STREAM, subjects.log(7))
    async with asyncio.timeout(PATIENCE):
        await superlink.start_run_again()
        while await problems(superlink):
            await asyncio.sleep(0.2)
    assert (await superlink.status(before.run_id))[0] == "pending"


async def test_hours_left_are_in_the_log_and_in_the_metrics_before_a_place_is_full(
    superlink: Superlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    steadily = Room(free=600_000, size=LIMIT, hours_left=3.2)
    monkeypatch.setattr(RoomTrend, "note", lambda *_: steadily)
    watch = RoomWatch(superlink.connection, disk=None)

    with capture_logs() as lines:
        watching = asyncio.create_task(watch.run())
        async with asyncio.timeout(PATIENCE):
            while not (watch.report() and any(one["event"] == "room_is_low" for one in lines)):
                await asyncio.sleep(0.05)
        watching.cancel()

    assert watch.report()["broker account"]["is_low"]
    assert 'room_hours_left{place="broker account"} 3.2' in exposition(watch.metrics())
    assert {one["hours_left"] for one in lines if one["event"] == "room_is_low"} == {3.2}


async def test_a_database_that_ran_out_of_file_descriptors_is_told_of_and_waited_for(
    data_dir: Path, nats_url: str
) -> None:
    server = PostgresServer(data_dir)
    try:
        async with running_superlink(nats_url, await server.start()) as superlink:
            before = await superlink.start_run()
            with psycopg.connect(server.dsn) as admin:
                connected = admin.execute(
                    "SELECT pid FROM pg_stat_activity WHERE application_name = 'flower-nats'"
                ).fetchall()
            with few_files(server.pid):
                # Connected backends have already opened their files.
                for (pid,) in connected:
                    os.kill(pid, signal.SIGTERM)
                with refused(ErrorCode.UNAVAILABLE):
                    await superlink.start_run()
                [problem] = (await superlink.command("Status"))["problems"]
                assert "the database does not answer" in problem

            async with asyncio.timeout(60):
                await superlink.start_run_again()
            assert (await superlink.status(before.run_id))[0] == "pending"
    finally:
        await server.stop()


@contextmanager
def few_files(pid: int) -> Iterator[None]:
    """Forbid a process and its children to open files, during a `with` block."""
    processes = [pid, *(child.pid for child in psutil.Process(pid).children())]
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # They have inherited our limit.
    limit_files(processes, 3)
    try:
        yield
    finally:
        limit_files(processes, limit)


def limit_files(pids: list[int], number: int) -> None:
    """Set the limit of open files for processes of PostgreSQL."""
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    prefix = as_nobody if os.geteuid() == 0 else ()
    for pid in pids:
        # Without a check: a process may have ended meanwhile.
        subprocess.run([*prefix, "prlimit", f"--pid={pid}", f"--nofile={number}:"], check=False)
