"""The NATS and the PostgreSQL of a data directory, without a runtime on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from flower_nats.broker.permissions import User
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats_cli.datadir import DataDir
from flower_nats_cli.nats_servers import Broker


class ServerUrls(NamedTuple):
    """The URLs of both servers. They contain the passwords."""

    nats: Sequence[str]
    database: str


@asynccontextmanager
async def embedded_servers(data: DataDir, replicas: int = 1) -> AsyncIterator[ServerUrls]:
    """Run both servers for the time of a `with` block, on a directory that is owned."""
    await data.end_leftovers()
    broker = Broker(data, replicas)
    postgres = PostgresServer(data.postgres, data.log_of("postgres"))
    servers: list[NatsServer | PostgresServer] = [*broker.servers, postgres]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        await broker.until_formed()
        yield ServerUrls(broker.urls_of(User.BACKUP), await postgres.dsn_for_owner())
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
