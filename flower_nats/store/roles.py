"""The role that superlinks connect as: it owns what they store, and nothing of the server."""

from __future__ import annotations

import psycopg
from psycopg import AsyncConnection, sql

from flower_nats.store.queries import load

_SQL = load("roles")

_CONNECT_SECONDS = 10
"""Seconds that a server on this machine, which has just said that it is ready, may take to let us in."""


async def make_ordinary_role(superuser_dsn: str, name: str, password: str) -> None:
    """Let `name` in with `password`, as the owner of all that a superlink has made.

    It can do nothing outside its database: read no file of the server's, run no program. What an
    earlier version made as the superuser becomes its own. Done again, it changes nothing.
    """
    role = sql.Identifier(name)
    async with await AsyncConnection.connect(
        superuser_dsn, connect_timeout=_CONNECT_SECONDS
    ) as connection:
        await connection.execute(_SQL["lock_roles"])
        await connection.execute(_SQL["let_this_be_role"], {"name": name})
        if not await _exists(connection, name):
            await connection.execute(sql.SQL("CREATE ROLE {}").format(role))
        # The server keeps a hash of the password, and logs no statement that succeeds.
        await connection.execute(
            sql.SQL(
                "ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD {}"
            ).format(role, sql.Literal(password))
        )
        await connection.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(role))
        await connection.execute(_SQL["hand_over"])


async def _exists(connection: psycopg.AsyncConnection[tuple[object, ...]], name: str) -> bool:
    cursor = await connection.execute(_SQL["find_role"], {"name": name})
    return await cursor.fetchone() is not None
