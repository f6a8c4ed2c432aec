"""Isolation: the user and the files of app processes, and the database rights of superlinks."""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg.rows import TupleRow

from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.embedded.process import OwnedProcess, ProcessFailedError, ProcessSpec, User
from flower_nats.store.connection import Database
from flower_nats.store.migrate import MayNotMigrate, migrate, migrations
from harness.environment import clean_environment
from tests.integration.superlinks import running_superlink

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs processes as others")

TELL = """
echo "$(cat /dev/stdin) $(id -u) $(id -G)"
grep -E 'NoNewPrivs|CapEff' /proc/self/status | tr -d '[:space:]'
echo " again: $(cat /dev/stdin)"
ls "$SECRET" 2> /dev/null || echo closed
"""


@AS_ROOT
async def test_a_process_of_another_user_has_what_it_is_given_and_nothing_of_ours(
    tmp_path: Path,
) -> None:
    nobody = pwd.getpwnam("nobody")
    (tmp_path / "secret").write_text("hush")
    process = OwnedProcess(
        ProcessSpec(
            name="app",
            command=["/bin/sh", "-c", TELL],
            environment={"PATH": os.defpath, "SECRET": str(tmp_path)},
            log=tmp_path / "app.log",
            input=tmp_path / "secret",
            user=User("nobody", nobody.pw_uid, nobody.pw_gid, Path(nobody.pw_dir)),
        )
    )
    await process.start()

    assert await process.wait() == 0, (tmp_path / "app.log").read_text()
    told, more, closed = (tmp_path / "app.log").read_text().splitlines()
    assert told == f"hush {nobody.pw_uid} {nobody.pw_gid}"
    # The process has no rights of root, cannot gain any, and cannot read the secret again.
    assert more == "CapEff:0000000000000000NoNewPrivs:1 again: "
    assert closed == "closed"


async def test_superlinks_read_and_write_rows_and_can_do_nothing_else(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    await server.start()
    try:
        # Like the database of an earlier version: the superuser owns all tables.
        earlier = Database(server.dsn, max_connections=1)
        await earlier.open()
        assert await migrate(earlier) == list(migrations())
        await earlier.close()

        dsn = await server.dsn_for_superlinks()
        assert await server.dsn_for_superlinks() == dsn

        with psycopg.connect(await server.dsn_for_owner(), autocommit=True) as owner:
            owner.execute("ALTER TABLE run ADD more int")
            owner.execute("CREATE TABLE later (a int GENERATED ALWAYS AS IDENTITY, b int)")
            owner.execute("CREATE OR REPLACE VIEW run_count AS SELECT count(*) FROM run")
            _refuses(owner, *NOT_FOR_ANYBODY)
        with psycopg.connect(dsn, autocommit=True) as serving:
            serving.execute("INSERT INTO later (b) VALUES (1)")
            serving.execute("UPDATE later SET b = 2")
            serving.execute("DELETE FROM later")
            assert serving.execute("SELECT forget_audit_events(1)").fetchone() == (0,)
            owned = "SELECT count(*) FROM pg_class WHERE relowner = 'superlink'::regrole"
            assert serving.execute(owned).fetchone() == (0,)
            _refuses(serving, *NOT_FOR_ANYBODY, *FOR_THE_OWNER)
    finally:
        await server.stop()


NOT_FOR_ANYBODY = (
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
    "CREATE ROLE more",
    "ALTER SYSTEM SET fsync = off",
    "ALTER ROLE superlink SUPERUSER",
)
FOR_THE_OWNER = (
    "ALTER TABLE run ADD other int",
    "CREATE TABLE other (a int)",
    "DROP TABLE run",
    "TRUNCATE run",
    "CREATE OR REPLACE VIEW run_count AS SELECT 1",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TRIGGER t AFTER INSERT ON run EXECUTE FUNCTION now()",
    "DELETE FROM schema_migration",
    "UPDATE audit_event SET outcome = ''",
    "DELETE FROM audit_event",
    "SELECT set_config('flower_nats.audit_retention', 'on', true); DELETE FROM audit_event",
    "UPDATE audit_bound SET least_days = 1",
    "DELETE FROM audit_bound",
    "DROP TRIGGER audit_event_kept ON audit_event",
    "SET ROLE owner",
)


def _refuses(connection: psycopg.Connection[TupleRow], *statements: LiteralString) -> None:
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


async def test_a_superlink_that_may_not_migrate_says_what_to_do(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    await server.start()
    try:
        dsn = await server.dsn_for_superlinks()
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM schema_migration WHERE name = '0002_heard_by'")
        serving = Database(dsn, max_connections=1)
        await serving.open()
        try:
            with pytest.raises(MayNotMigrate, match=r"0002_heard_by.*`flower-nats migrate`"):
                await migrate(serving)
        finally:
            await serving.close()
    finally:
        await server.stop()


def _migrate(owner: str, serving: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "FLOWER_NATS_MIGRATE_DATABASE": owner,
        "FLOWER_NATS_MIGRATE_SERVING_ROLE": serving,
    }
    return subprocess.run(
        [Path(sys.executable).with_name("flower-nats"), "migrate"],
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        check=True,
    )


async def test_migrate_makes_the_tables_and_the_role_of_superlinks(
    empty_pg_dsn: str, nats_url: str
) -> None:
    owner = empty_pg_dsn
    name = f"serving_{os.getpid()}"
    serving = urlunsplit(urlsplit(owner)._replace(netloc=f"{name}:hush@"))
    for applied in (len(migrations()), 0):
        done = await asyncio.to_thread(_migrate, owner, serving)
        assert done.stdout.startswith(f"{applied} migrations were applied")
        assert "hush" not in done.stdout + done.stderr

    async with running_superlink(nats_url, serving) as superlink:
        run = await superlink.start_run()
        assert (await superlink.status(run.run_id))[0] == "pending"


async def test_what_is_too_long_for_a_pipe_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    (tmp_path / "long").write_bytes(b"x" * 100_000)
    process = OwnedProcess(
        ProcessSpec(name="app", command=[sys.executable], input=tmp_path / "long")
    )

    with pytest.raises(ProcessFailedError, match="longer than"):
        await process.start()
