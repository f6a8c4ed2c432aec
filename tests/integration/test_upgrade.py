"""A database serves one version at a time, and processes of former releases are recognized."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from flower_nats.embedded.identity import ProcessIdentity
from flower_nats.model.about import OtherVersion
from flower_nats.store.connection import Database
from flower_nats.store.migrate import NewerDatabase, apply_migrations, migrate, migrations
from flower_nats.store.replicas import Replicas
from flower_nats_cli.datadir import DataDir
from flower_nats_cli.down import down

PATIENCE = 0.6
"""Seconds for others to end: in a test they end when the test says so, or never."""


@pytest.fixture
async def database(pg_dsn: str) -> AsyncIterator[Database]:
    database = Database(pg_dsn, max_connections=2)
    await database.open()
    await migrate(database)
    yield database
    await database.close()


async def announce(database: Database, kind: str = "superlink", version: str = "0.1.5") -> None:
    about = {"version": version, "host": "elsewhere"}
    await Replicas(database).announce(kind, "another", 0.0, about=about)


@pytest.mark.parametrize("kind", ["superlink", "gateway"])
async def test_a_superlink_does_not_serve_beside_another_version(
    database: Database, kind: str
) -> None:
    await announce(database, kind)

    with pytest.raises(OtherVersion, match=rf"{kind} of 0\.1\.5, host elsewhere.*end all"):
        await migrate(database, PATIENCE)


async def test_it_waits_for_the_other_version_to_end(database: Database) -> None:
    await announce(database)

    starting = asyncio.create_task(migrate(database, 60.0))
    await asyncio.sleep(0)
    await Replicas(database).leave("superlink", "another")

    assert await starting == []


async def test_nothing_is_migrated_under_replicas_that_are_at_work(
    database: Database, pg_dsn: str
) -> None:
    with psycopg.connect(pg_dsn) as connection:
        # Like in 0.1.0: replicas report nothing about themselves, and no trigger notes them.
        connection.execute("ALTER TABLE replica DISABLE TRIGGER USER")
        connection.execute("ALTER TABLE replica DROP COLUMN about")
        connection.execute("INSERT INTO replica (kind, id, since) VALUES ('gateway', 'old', now())")
        connection.execute("DELETE FROM schema_migration WHERE name = '0002_heard_by'")

    with pytest.raises(OtherVersion, match="gateway of an earlier version"):
        await migrate(database, PATIENCE)
    with psycopg.connect(pg_dsn) as connection:
        found = connection.execute("SELECT count(*) FROM schema_migration").fetchone()
        assert found == (len(migrations()) - 1,)


@pytest.mark.parametrize("bring", [migrate, apply_migrations])
async def test_a_former_version_leaves_the_database_of_a_newer_one_alone(
    database: Database, pg_dsn: str, bring: object
) -> None:
    with psycopg.connect(pg_dsn) as connection:
        connection.execute("INSERT INTO schema_migration (name) VALUES ('9999_to_come')")

    assert callable(bring)
    with pytest.raises(NewerDatabase, match=r"9999_to_come.*the backup from before"):
        await bring(database)


UP_OF_0_1_0 = """
import fcntl, os, signal, sys

os.makedirs(sys.argv[1], 0o700)
lock = os.open(sys.argv[1] + "/up.lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, str(os.getpid()).encode())
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
signal.sigwait({signal.SIGTERM})
"""
"""Owns a directory like 0.1.0: by its pid alone."""


def test_down_ends_what_0_1_0_has_started_and_says_that_it_was_not_told_of_runs(
    data_dir: Path,
) -> None:
    up = subprocess.Popen(
        [sys.executable, "-c", UP_OF_0_1_0, str(data_dir)], stdout=subprocess.PIPE
    )
    try:
        assert up.stdout is not None
        assert up.stdout.readline() == b"ready\n"
        published = {
            **{"pid": up.pid, "started_at": "2026-11-22T00:00:00+00:00"},
            **{"nats": ["nats://127.0.0.1:9"], "serverappio_api_address": "127.0.0.1:1"},
            **{"fleet_api_address": "127.0.0.1:2", "control_api_address": "127.0.0.1:3"},
            "said_by_another_version": True,
        }
        state_file = data_dir / "up.json"
        state_file.write_text(json.dumps(published))
        state_file.chmod(0o600)

        state = DataDir(data_dir).state()
        assert state is not None
        assert (state.http_api_address, state.fleet_api_address) == ("", "127.0.0.1:2")

        refused = CliRunner().invoke(down, ["--data-dir", str(data_dir), "--wait", "1"])
        assert refused.exit_code == 1
        assert "nothing was ended" in refused.output
        assert up.poll() is None

        done = CliRunner().invoke(down, ["--data-dir", str(data_dir)])
        assert done.exit_code == 0, done.output
        assert up.wait() == 0
    finally:
        up.kill()
        up.communicate()


def test_a_process_that_0_1_0_has_written_down_is_known() -> None:
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    ticks = me.started.partition("@")[0]

    assert ProcessIdentity(me.pid, ticks).is_alive()
    assert not ProcessIdentity(me.pid, ticks[:-1]).is_alive()
    assert not ProcessIdentity(me.pid, "").is_alive()
