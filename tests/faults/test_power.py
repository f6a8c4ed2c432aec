"""All processes die at the same moment, and come back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.streams import ensure_streams
from flower_nats.embedded.nats_server import find_nats_server
from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from flower_nats.embedded.secret import secret_in
from harness.cluster import Cluster, Size
from harness.environment import free_port
from harness.processes import Victim, freeze_all, kill_all
from tests.faults.disk import Disk, NoDisk, disk
from tests.faults.trial import Trial, Wires, running_trial

MESSAGES = 50


@pytest.fixture
def one_disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that can lose its power."""
    try:
        with disk(tmp_path) as one:
            yield one
    except NoDisk as exc:
        pytest.skip(str(exc))


async def cut_power(disk: Disk, victims: Sequence[Victim]) -> None:
    """Cut the power of processes and of their disk at the same moment."""
    # The processes are stopped first: none may acknowledge data that the disk did not take.
    freeze_all(victims)
    disk.cut()
    await kill_all(victims)
    disk.unmount()
    disk.mount()


async def test_every_process_is_killed_at_once(cluster: Cluster, running: Trial) -> None:
    await kill_all(cluster.everybody)
    # In no order: each process waits for the servers that it needs.
    await asyncio.gather(*(one.start() for one in cluster.everybody))
    await running.app.more_rounds(2)

    await running.end_unharmed()


async def test_the_power_of_everything_is_cut(one_disk: Disk, wires: Wires) -> None:
    cluster = Cluster(one_disk.path / "runtime", Size(nats=3))
    try:
        await cluster.start()
        async with running_trial(cluster, wires) as running:
            await cut_power(one_disk, cluster.everybody)
            await asyncio.gather(*(one.start() for one in cluster.everybody))
            await running.app.more_rounds(2)

            await running.end_unharmed()
    finally:
        await cluster.close()


@pytest.mark.parametrize(("sync_interval", "is_kept"), [("always", True), ("2m", False)])
async def test_a_cut_takes_what_was_acknowledged_and_not_synced(
    one_disk: Disk, sync_interval: str, is_kept: bool
) -> None:
    server, url = make_nats(one_disk.path, sync_interval)
    await server.start()
    try:
        connection = await Connection.connect([url], "test")
        await ensure_streams(connection)
        for number in range(MESSAGES):
            await connection.store(f"fn.run.1.{number}", b"acknowledged")
        await cut_power(one_disk, [server])
        await server.start()
        kept = await what_is_left(connection)
        await connection.close()
    finally:
        await server.stop()

    assert (len(kept) == MESSAGES) is is_kept


def make_nats(folder: Path, sync_interval: str) -> tuple[OwnedProcess, str]:
    port, config = free_port(), folder / "nats.conf"
    jetstream = f"{{store_dir: '{folder}/js', sync_interval: '{sync_interval}'}}"
    config.write_text(f"port: {port}, jetstream: {jetstream}")
    os.sync()
    spec = ProcessSpec("nats", [find_nats_server(), "-c", str(config)], log=folder / "nats.log")
    return OwnedProcess(spec), f"nats://127.0.0.1:{port}"


async def what_is_left(connection: Connection) -> list[str]:
    # This call waits until the server answers again.
    await connection.account()
    answer = await connection.ask("$JS.API.STREAM.NAMES", b"{}")
    if subjects.MESSAGES_STREAM not in (json.loads(answer.data).get("streams") or ()):
        return []
    return await connection.subjects(subjects.MESSAGES_STREAM, subjects.run(1))


async def test_a_secret_that_servers_were_given_outlives_a_cut(one_disk: Disk) -> None:
    folder = one_disk.path / "server"
    secret = secret_in(folder)

    await cut_power(one_disk, [])

    assert secret_in(folder) == secret
