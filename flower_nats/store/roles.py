"""Roles of PostgreSQL: one that owns and changes the tables, and one that superlinks serve with.

The owner migrates the database. The serving role reads and writes rows, and can neither change nor drop
what holds them. Neither can do anything outside the database: read the server's files, run programs.
"""

from __future__ import annotations

import psycopg
from psycopg import AsyncConnection, sql

from flower_nats.store.queries import load

_SQL = load("roles")

_CONNECT_SECONDS = 10
"""Seconds that a server on this machine, which has just said that it is ready, may take to let us in."""

Connection = AsyncConnection[tuple[object, ...]]


async def make_owner(superuser_dsn: str, name: str, password: str) -> None:
    """Let `name` in with `password`, as the owner of all that is in the database.

    What an earlier version made as another role becomes its own. Done again, it changes nothing.
    """
    async with await _connect(superuser_dsn) as connection:
        await connection.execute(_SQL["lock_roles"])
        await _make(connection, name, password)
        await connection.execute(_SQL["let_this_be_role"], {"name": name})
        await connection.execute(_SQL["hand_over"])


async def make_serving_role(superuser_dsn: str, owner: str, name: str, password: str) -> None:
    """Let `name` in with `password`, to read and write the rows of all tables, now and to come.

    Tables to come are those that `owner` makes. Done again, it changes nothing.
    """
    async with await _connect(superuser_dsn) as connection:
        await connection.execute(_SQL["lock_roles"])
        await _make(connection, name, password)
        role = sql.Identifier(name)
        await connection.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(role))
        for grant in _GRANTS:
            await connection.execute(sql.SQL(grant).format(role=role, owner=sql.Identifier(owner)))


_GRANTS = (
    "GRANT USAGE ON SCHEMA public TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
    "GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public "
    "GRANT SELECT, USAGE ON SEQUENCES TO {role}",
    # Which migrations were applied, the owner alone says.
    "REVOKE INSERT, UPDATE, DELETE ON schema_migration FROM {role}",
    # Events are added; the owner's function forgets those of an age.
    "REVOKE UPDATE, DELETE ON audit_event FROM {role}",
    "REVOKE INSERT, UPDATE, DELETE ON audit_bound FROM {role}",
)


async def _connect(dsn: str) -> Connection:
    return await AsyncConnection.connect(dsn, connect_timeout=_CONNECT_SECONDS)


async def _make(connection: Connection, name: str, password: str) -> None:
    role = sql.Identifier(name)
    if not await _exists(connection, name):
        await connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    # The server keeps a hash of the password, and logs no statement that succeeds.
    await connection.execute(
        sql.SQL(
            "ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD {}"
        ).format(role, sql.Literal(password))
    )


async def _exists(connection: psycopg.AsyncConnection[tuple[object, ...]], name: str) -> bool:
    cursor = await connection.execute(_SQL["find_role"], {"name": name})
    return await cursor.fetchone() is not None
