"""A PostgreSQL primary and its synchronous standby, as an operator sets them up."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flower_nats.embedded.postgres_server import PostgresServer, find_postgres
from flower_nats.embedded.process import OwnedProcess, ProcessSpec, private_directory
from harness.children import PATIENCE


class PostgresPair:
    """Two servers; one of them at a time takes writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._primary = PostgresServer(folder / "primary", folder / "postgres-primary.log")
        self._standby = PostgresServer(folder / "standby", folder / "postgres-standby.log")
        self._now = self._primary

    @property
    def dsn(self) -> str:
        """Connection string that names both servers and leads to the one that takes writes."""
        first, second = (conninfo_to_dict(one.dsn) for one in (self._primary, self._standby))
        hosts = f"{first['host']},{second['host']}"
        return make_conninfo("", **{**first, "host": hosts, "target_session_attrs": "read-write"})

    async def start(self) -> None:
        """Start the primary and a standby that follows it; from then on, commits wait for both."""
        private_directory(self._folder)
        await self._primary.start()
        await self._copy()
        await self._standby.start()
        # Set after the copy: a standby that takes over has no standby to wait for.
        await self._tell_primary("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self._tell_primary("SELECT pg_reload_conf()")
        async with asyncio.timeout(PATIENCE):
            while not await self._is_followed():
                await asyncio.sleep(0.05)

    async def lose_primary(self) -> None:
        """Kill every process of the primary with `kill -9`."""
        os.killpg(self._primary.pid, signal.SIGKILL)
        await self._primary.wait()

    async def promote(self) -> None:
        """Run `pg_ctl promote`, and wait until the standby takes writes."""
        done = OwnedProcess(
            ProcessSpec(
                name="pg_ctl promote",
                command=(str(find_postgres() / "pg_ctl"), "promote", "-D", self._standby_data),
                log=self._folder / "promote.log",
                unprivileged=True,
            )
        )
        await done.start()
        if await done.wait() != 0:
            raise done.failure()
        self._now = self._standby

    def exit_code(self) -> int | None:
        """The exit code of the server that takes writes; None while it runs."""
        return self._now.exit_code()

    async def stop(self) -> None:
        """End both."""
        await asyncio.gather(self._primary.stop(), self._standby.stop())

    @property
    def _standby_data(self) -> str:
        return str((self._folder / "standby" / "data").resolve())

    async def _copy(self) -> None:
        """Copy the primary with `pg_basebackup`."""
        directory = private_directory(self._folder / "standby")
        shutil.copy(self._folder / "primary" / "password", directory / "password")
        login = conninfo_to_dict(self._primary.dsn)
        flags = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
        copying = OwnedProcess(
            ProcessSpec(
                name="pg_basebackup",
                command=(
                    str(find_postgres() / "pg_basebackup"),
                    *("--host", str(login["host"]), "--username", str(login["user"])),
                    *("--pgdata", self._standby_data, *flags),
                ),
                environment={**os.environ, "PGPASSWORD": str(login["password"])},
                log=self._folder / "pg_basebackup.log",
                unprivileged=True,
            )
        )
        await copying.start()
        try:
            async with asyncio.timeout(PATIENCE):
                code = await copying.wait()
        finally:
            await copying.stop()
        if code != 0:
            raise copying.failure()

    async def _is_followed(self) -> bool:
        rows = await self._tell_primary("SELECT sync_state FROM pg_stat_replication")
        return rows == [("sync",)]

    async def _tell_primary(self, statement: str) -> list[tuple[object, ...]]:
        async with await psycopg.AsyncConnection.connect(
            self._primary.dsn, autocommit=True
        ) as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []
