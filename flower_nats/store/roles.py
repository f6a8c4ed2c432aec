"""Roles of PostgreSQL: one that owns and changes the tables, and one that superlinks serve with.

The owner migrates the database. The serving role reads and writes rows, and can neither change nor
drop tables. Neither role can do anything outside the database, such as reading the server's files
or running programs.
"""

from __future__ import annotations

import psycopg
from psycopg import AsyncConnection, sql

from flower_nats.store.queries import load

_SQL = load("roles")

_CONNECT_SECONDS = 10
"""Seconds that a local server may still refuse logins after it has reported to be ready."""

Connection = AsyncConnection[tuple[object, ...]]


async def make_owner(superuser_dsn: str, name: str, password: str) -> None:
    """Create or update the role `name` with `password` as the owner of everything in the database.

    Objects that an earlier version made as another role become the owner's. A second call changes
    nothing.
    """
    async with await _connect(superuser_dsn) as connection:
        await connection.execute(_SQL["lock_roles"])
        await _make(connection, name, password)
        await connection.execute(_SQL["let_this_be_role"], {"name": name})
        await connection.execute(_SQL["hand_over"])


async def make_serving_role(superuser_dsn: str, owner: str, name: str, password: str) -> None:
    """Create or update the role `name` with `password`, which reads and writes rows of all tables.

    This includes later tables that `owner` creates. A second call changes nothing.
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
    # Only the owner records migrations.
    "REVOKE INSERT, UPDATE, DELETE ON schema_migration FROM {role}",
    # The serving role only adds audit events. A function of the owner removes old ones.
    "REVOKE UPDATE, DELETE ON audit_event FROM {role}",
    "REVOKE INSERT, UPDATE, DELETE ON audit_bound FROM {role}",
)


async def _connect(dsn: str) -> Connection:
    return await AsyncConnection.connect(dsn, connect_timeout=_CONNECT_SECONDS)


async def _make(connection: Connection, name: str, password: str) -> None:
    role = sql.Identifier(name)
    if not await _exists(connection, name):
        await connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    # The server stores a hash of the password, and does not log successful statements.
    await connection.execute(
        sql.SQL(
            "ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD {}"
        ).format(role, sql.Literal(password))
    )


async def _exists(connection: psycopg.AsyncConnection[tuple[object, ...]], name: str) -> bool:
    cursor = await connection.execute(_SQL["find_role"], {"name": name})
    return await cursor.fetchone() is not None
