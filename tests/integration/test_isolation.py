"""What runs other people's code: as whom, with which files, and what the database lets superlinks do."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import psycopg
import pytest

from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.embedded.process import OwnedProcess, ProcessFailedError, ProcessSpec, User
from flower_nats.store.connection import Database
from flower_nats.store.migrate import migrate, migrations

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
    # No rights of root, none to be gained, and the secret cannot be read a second time.
    assert more == "CapEff:0000000000000000NoNewPrivs:1 again: "
    assert closed == "closed"


async def test_superlinks_own_their_tables_and_can_do_nothing_else(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    await server.start()
    try:
        # As an earlier version has left it: all of it was the superuser's.
        earlier = Database(server.dsn, max_connections=1)
        await earlier.open()
        assert await migrate(earlier) == list(migrations())
        await earlier.execute("DELETE FROM schema_migration WHERE name = '0001_none'")
        await earlier.close()

        dsn = await server.dsn_for_superlinks()
        assert await server.dsn_for_superlinks() == dsn

        with psycopg.connect(dsn, autocommit=True) as connection:
            for change in ("ALTER TABLE run ADD more int", "CREATE TABLE other (a int)"):
                connection.execute(change)
            connection.execute("CREATE OR REPLACE VIEW run_count AS SELECT count(*) FROM run")
            for forbidden in (
                "COPY (SELECT 1) TO PROGRAM 'true'",
                "SELECT pg_read_file('/etc/passwd')",
                "CREATE ROLE more",
                "ALTER SYSTEM SET fsync = off",
                "ALTER ROLE superlink SUPERUSER",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(forbidden)
    finally:
        await server.stop()


async def test_what_is_too_long_for_a_pipe_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    (tmp_path / "long").write_bytes(b"x" * 100_000)
    process = OwnedProcess(
        ProcessSpec(name="app", command=[sys.executable], input=tmp_path / "long")
    )

    with pytest.raises(ProcessFailedError, match="longer than"):
        await process.start()
