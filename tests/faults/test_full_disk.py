"""The disk of `flower-nats up` is full, and has room again: no operator has to act."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.embedded.nats_cluster import is_cluster
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.model.errors import ErrorCode, FlowerNatsError
from flower_nats_cli.supervisor import Supervisor
from harness.children import PATIENCE
from tests.e2e.federation import APPS
from tests.e2e.test_cli_up import Runtime, run, write_config
from tests.faults.disk import NoDisk
from tests.faults.small_disk import SmallDisk, small_disk
from tests.integration.superlinks import refused, running_superlink
from tests.integration.test_health import get

MEGABYTES = 600
CONTENT = b"\1" * 500_000
RUN = 7


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path, MEGABYTES) as one:
            yield one
    except NoDisk as exc:
        pytest.skip(str(exc))


@asynccontextmanager
async def runtime_on(disk: SmallDisk, *flags: str) -> AsyncIterator[Runtime]:
    """Run `flower-nats up` on the disk."""
    health = ("--http-health-address", "127.0.0.1:0")
    runtime = Runtime(disk.path, "--isolation", "process", *health, *flags)
    try:
        await asyncio.to_thread(runtime.wait_until_ready)
        yield runtime
    finally:
        runtime.up.terminate()


@asynccontextmanager
async def broker_of(runtime: Runtime) -> AsyncIterator[Connection]:
    """Connect as the owner, because operators may not store anything."""
    state = json.loads((runtime.data_dir / "up.json").read_text())
    folder = "nats-cluster" if is_cluster(runtime.data_dir) else "nats"
    secret = (runtime.data_dir / folder / "password").read_text()
    urls = [re.sub(r"//[^@]*@", f"//owner:{secret}@", url) for url in state["nats"]]
    connection = await Connection.connect(urls, "test")
    try:
        yield connection
    finally:
        await connection.close()


async def store_until_refused(connection: Connection, subject: str) -> list[int]:
    """Store until the broker refuses; return the sequences of the acknowledged messages."""
    acknowledged: list[int] = []
    while True:
        try:
            stored = await connection.store(subject, CONTENT, patience=2, await_room=False)
        except FlowerNatsError:
            return acknowledged
        acknowledged.append(stored.sequence)


async def is_there(connection: Connection, sequence: int) -> bool:
    line = await connection.next(subjects.LOGS_STREAM, subjects.log(RUN), after=sequence - 1)
    return line is not None and line.sequence == sequence and len(line.data) == len(CONTENT)


async def stores_again(connection: Connection) -> None:
    """Wait until each stream stores again."""
    for stream in subjects.STREAMS:
        await connection.store(subjects.trial(stream), b"", patience=PATIENCE)


async def test_a_database_without_room_is_told_of_and_goes_on_once_there_is(
    disk: SmallDisk, nats_url: str
) -> None:
    postgres, supervisor = PostgresServer(disk.path / "postgres"), Supervisor()
    await supervisor.start([postgres], grace=5)
    supervisor.watch()
    try:
        async with running_superlink(nats_url, postgres.dsn, watch_disk=disk.path) as superlink:
            before = await superlink.start_run()
            disk.fill()
            with refused(ErrorCode.NOTHING_STORED, "a disk of the server is full"):
                while True:
                    await superlink.start_run()

            disk.free()
            async with asyncio.timeout(PATIENCE):
                await superlink.start_run_again()

            assert (await superlink.status(before.run_id))[0] == "pending"
    finally:
        await supervisor.stop()


@pytest.mark.parametrize("replicas", [1, pytest.param(3, marks=pytest.mark.long)])
async def test_a_full_disk_is_told_of_and_forgotten_once_there_is_room(
    disk: SmallDisk, tmp_path: Path, replicas: int
) -> None:
    async with (
        runtime_on(disk, "--replicas", str(replicas)) as runtime,
        broker_of(runtime) as connection,
    ):
        health = [*(await asyncio.to_thread(runtime.status))["http_health"].values()]
        home = tmp_path / "home"
        write_config(runtime, home)
        disk.fill_but(20)
        # Logs: housekeeping does not remove them for 90 days.
        acknowledged = await store_until_refused(connection, subjects.log(RUN))
        disk.fill()
        await store_until_refused(connection, subjects.object_chunk(RUN, "0" * 64, 0))

        async with asyncio.timeout(PATIENCE):
            while not all(get(one, "/readyz") == (503, "lacks streams") for one in health):
                await asyncio.sleep(0.5)
        # `up` restarts servers that refuse to store, so the status may be of a moment in between.
        async with asyncio.timeout(PATIENCE):
            report = await asyncio.to_thread(runtime.status)
            while not any("does not store" in one for one in report["problems"]):
                await asyncio.sleep(0.5)
                report = await asyncio.to_thread(runtime.status)
        assert not report["healthy"]
        turned_away = await asyncio.to_thread(
            run, "flwr", "run", str(APPS / "nothing"), "flower-nats", FLWR_HOME=str(home)
        )
        assert turned_away.returncode != 0
        assert "a disk of the server is full" in " ".join(
            (turned_away.stdout + turned_away.stderr).split()
        )

        disk.free()
        async with asyncio.timeout(PATIENCE):
            await stores_again(connection)
            while any(get(one, "/readyz")[0] != 200 for one in health):
                await asyncio.sleep(0.5)

        assert acknowledged
        assert all([await is_there(connection, sequence) for sequence in acknowledged])
        # The only problem is that no SuperExec was started here.
        [problem] = (await asyncio.to_thread(runtime.status))["problems"]
        assert "SuperExec" in problem
        started = await asyncio.to_thread(
            run, "flwr", "run", str(APPS / "nothing"), "flower-nats", FLWR_HOME=str(home)
        )
        assert started.returncode == 0, started.stdout + started.stderr
