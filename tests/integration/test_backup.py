"""Backups of a runtime at work with the commands, and the runtimes that are restored from them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.permissions import User
from flower_nats.broker.runlog import RunLogs
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.store.migrate import migrations
from harness.children import PATIENCE
from harness.environment import SCRIPTS, clean_environment
from harness.logins import as_user
from tests.integration.superlinks import Superlink, Task, running_superlink

LINES = "".join(f"line {number} of a log\n" for number in range(2000))
"""A log that nats-server sends in several pieces."""

FEW = "the first\nthe last\n"


async def flower_nats(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command like an operator, while a superlink runs in this process."""
    return await asyncio.to_thread(
        subprocess.run,
        [str(SCRIPTS / "flower-nats"), *map(str, words)],
        env=clean_environment(variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


def servers(nats: str, database: str) -> list[str]:
    return ["--nats", as_user(nats, User.BACKUP), "--database", database]


async def say(task: Task, text: str) -> None:
    """Store a line in the log of a run."""
    await task.superlink.connection.store(subjects.log(task.run_id), text.encode())


async def finished_run(superlink: Superlink, text: str) -> int:
    task = await superlink.running_task()
    await say(task, text)
    await task.push_output()
    return task.run_id


async def one_run_after_the_other(superlink: Superlink) -> None:
    """Finish runs until cancelled: each run has its whole log before its end."""
    while True:
        await finished_run(superlink, FEW)


async def finished(superlink: Superlink) -> set[int]:
    rows = await superlink.database.fetch_all("SELECT run_id FROM run")
    runs = [row["run_id"] for row in rows]
    return {run_id for run_id in runs if (await superlink.status(run_id))[0] == "finished"}


async def log_of(connection: Connection, run_id: int) -> str:
    text, _ = await RunLogs(connection).read(run_id, 0)
    return text


@pytest.fixture
async def backup(nats_url: str, pg_dsn: str, tmp_path: Path) -> Path:
    """A backup of a runtime with one finished run."""
    async with running_superlink(nats_url, pg_dsn) as superlink:
        await finished_run(superlink, FEW)
        done = await flower_nats("backup", tmp_path / "backup", *servers(nats_url, pg_dsn))
    assert done.returncode == 0, done.stderr
    return tmp_path / "backup"


async def test_a_backup_under_load_has_each_finished_run_and_its_whole_log(
    nats_url: str, pg_dsn: str, empty_pg_dsn: str, tmp_path: Path
) -> None:
    place = tmp_path / "backup"
    async with running_superlink(nats_url, pg_dsn) as superlink:
        known = [await finished_run(superlink, LINES) for _ in range(5)]
        at_work = await superlink.running_task()
        await say(at_work, FEW)
        waiting = await superlink.start_run()
        load = asyncio.create_task(one_run_after_the_other(superlink))
        try:
            done = await flower_nats("backup", place, *servers(nats_url, pg_dsn))
        finally:
            load.cancel()
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_mode & 0o077 for path in [place, *place.iterdir()]} == {0}

    other = NatsServer(tmp_path / "nats")
    url = await other.start()
    try:
        done = await flower_nats("restore", place, *servers(url, empty_pg_dsn))
        assert done.returncode == 0, done.stderr
        async with running_superlink(url, empty_pg_dsn) as superlink:
            async with asyncio.timeout(PATIENCE):
                while (await superlink.status(at_work.run_id))[0] != "finished":
                    await asyncio.sleep(0.1)
            _, sub_status, details = await superlink.status(at_work.run_id)
            assert sub_status == "failed"
            assert "restored from a backup" in details
            assert (await superlink.status(waiting.run_id))[0] == "pending"
            assert await log_of(superlink.connection, at_work.run_id) == FEW
            over = await finished(superlink) - {at_work.run_id}
            assert over > set(known)
            for run_id in over:
                expected = LINES if run_id in known else FEW
                assert await log_of(superlink.connection, run_id) == expected
            # The restored runtime works.
            assert await finished_run(superlink, FEW)
    finally:
        await other.stop()


@pytest.mark.long
async def test_a_data_directory_is_made_of_a_backup_and_backed_up_while_nothing_runs(
    backup: Path, tmp_path: Path
) -> None:
    data: list[str | Path] = ["--data-dir", tmp_path / "data"]

    restored = await flower_nats("restore", backup, *data)
    # PGHOSTADDR is meant for another server, and must have no effect.
    again = await flower_nats("backup", tmp_path / "again", *data, PGHOSTADDR="192.0.2.1")

    assert restored.returncode == again.returncode == 0, restored.stderr + again.stderr
    assert "Now start `flower-nats up --data-dir" in restored.stdout
    former, later = (
        json.loads((place / "backup.json").read_text()) for place in (backup, tmp_path / "again")
    )
    assert later["migration"] == former["migration"]
    assert later["logs"]["state"]["messages"] == former["logs"]["state"]["messages"] > 0
    overwritten = await flower_nats("restore", backup, *data)
    assert overwritten.returncode == 1
    assert "Nothing was changed" in overwritten.stderr


async def test_what_is_in_use_is_not_overwritten(
    backup: Path, nats_url: str, pg_dsn: str, empty_pg_dsn: str
) -> None:
    again = await flower_nats("backup", backup, *servers(nats_url, pg_dsn))
    assert again.returncode == 1
    assert "exists already" in again.stderr

    into_streams = await flower_nats("restore", backup, *servers(nats_url, empty_pg_dsn))
    assert into_streams.returncode == 1
    assert "NATS has streams of a runtime" in into_streams.stderr


async def test_a_database_in_use_is_not_overwritten(
    backup: Path, pg_dsn: str, tmp_path: Path
) -> None:
    other = NatsServer(tmp_path / "nats")
    url = await other.start()
    try:
        done = await flower_nats("restore", backup, *servers(url, pg_dsn))
        assert done.returncode == 1
        assert "The database has the data of a runtime" in done.stderr
        connection = await Connection.connect([url], "test")
        assert await connection.stream_names("fn.>") == set()
        await connection.close()
    finally:
        await other.stop()


async def test_a_backup_that_is_damaged_newer_or_none_is_refused(
    backup: Path, nats_url: str, pg_dsn: str, tmp_path: Path
) -> None:
    none = await flower_nats("restore", tmp_path, *servers(nats_url, pg_dsn))
    assert "is not a backup" in none.stderr

    about = json.loads((backup / "backup.json").read_text())
    assert about["migration"] == max(migrations())
    newer = {**about, "migration": "9999_later", "version": "9.9.9"}
    (backup / "backup.json").write_text(json.dumps(newer))
    refused = await flower_nats("restore", backup, *servers(nats_url, pg_dsn))
    assert "flower-nats 9.9.9, which is newer" in refused.stderr

    (backup / "backup.json").write_text(json.dumps(about))
    with (backup / "logs.snapshot").open("r+b") as file:
        file.truncate(about["files"]["logs.snapshot"]["bytes"] - 1)
    damaged = await flower_nats("restore", backup, *servers(nats_url, pg_dsn))
    assert "logs.snapshot is missing or was changed" in damaged.stderr
    for done in (none, refused, damaged):
        assert done.returncode == 1
        assert "Traceback" not in done.stderr


async def test_a_backup_that_cannot_be_made_leaves_nothing(nats_url: str, tmp_path: Path) -> None:
    place = tmp_path / "backup"
    unused = "postgresql://nobody@127.0.0.1:9/none"

    done = await flower_nats("backup", place, *servers(nats_url, unused))

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240
    nowhere = await flower_nats("backup", place, "--data-dir", tmp_path / "none")
    assert "No runtime has been started" in nowhere.stderr
    half = await flower_nats("backup", place, "--database", unused)
    assert "--nats" in half.stderr
    assert half.returncode == 2
