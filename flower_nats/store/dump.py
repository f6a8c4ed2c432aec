"""Dumps of the database, by PostgreSQL's own programs."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from flower_nats.model.errors import FlowerNatsError
from flower_nats.store.connection import Database
from flower_nats.store.migrate import migrations
from flower_nats.store.queries import load

_SQL = load("database")

_CONNECT_SECONDS = "10"
"""Seconds for PostgreSQL's programs to connect."""

_PATIENCE = 5.0
"""Seconds for the database to answer at all."""


class DumpError(FlowerNatsError):
    """The database cannot be dumped, or restored."""


async def dump(program: str, dsn: str, file: Path) -> None:
    """Write a dump for `restore`, of one moment, while others write. Raises DumpError.

    `program` is pg_dump.
    """
    await _run(dsn, program, "--format=custom", "--no-owner", "--no-acl", f"--file={file}")


async def restore(program: str, dsn: str, file: Path) -> None:
    """Restore a dump into an empty database, completely or not at all. Raises DumpError.

    `program` is pg_restore. The restored objects belong to the role in `dsn`.
    """
    one = ["--single-transaction", "--exit-on-error"]
    # The schema exists, and may belong to another role.
    await _run(dsn, program, "--no-owner", "--no-acl", "--schema=public", *one, str(file))


async def look(dsn: str) -> tuple[int, str]:
    """Return a server's major version, and a database's newest migration, empty without one.

    Raises `Unavailable`.
    """
    database = Database(dsn, 1)
    await database.open(_PATIENCE)
    try:
        version = await database.fetch_one(_SQL["server_version"])
        ours = await database.fetch_one(_SQL["has_migrations"])
        assert version is not None
        assert ours is not None
        newest = await database.fetch_one(_SQL["newest_migration"]) if ours["found"] else None
        return int(version["major"]), str(newest["name"] or "") if newest else ""
    finally:
        await database.close()


def knows(migration: str) -> bool:
    """Whether this version can use a database with the newest migration `migration`."""
    return migration in migrations()


async def _run(dsn: str, program: str, *arguments: str) -> None:
    # The connection string is in the environment, because every user can read arguments.
    words = [program, "--no-password", *arguments]
    if Path(program).name == "pg_restore":
        words += ["--dbname", "dbname=" + _quoted(_parts(dsn).get("dbname", ""))]
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, **environment_of(dsn)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise DumpError(_refusal(Path(program).name, said.decode(errors="replace")))


def environment_of(dsn: str) -> dict[str, str]:
    """Return a connection string as variables of libpq."""
    variables = {
        option.keyword.decode(): option.envvar.decode()
        for option in Conninfo.get_defaults()
        if option.envvar
    }
    given = {variables[name]: value for name, value in _parts(dsn).items() if name in variables}
    return {"PGCONNECT_TIMEOUT": _CONNECT_SECONDS, **given}


def _parts(dsn: str) -> Mapping[str, str]:
    return {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _refusal(program: str, said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return f"{program} failed: {' '.join(lines[:3])}"
