"""A broker per test: the module's nats-server, with streams that are empty."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.streams import ensure_streams
from flower_nats.store.connection import Database
from harness.channels import WireName


@pytest.fixture(params=["grpc", "http"])
def wire(request: pytest.FixtureRequest) -> WireName:
    """Over which wire the test calls its gateways: once over each."""
    return cast(WireName, request.param)


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    """A connection to a broker whose streams exist and hold nothing."""
    connection = await Connection.connect([nats_url], "test")
    await ensure_streams(connection)
    for stream in subjects.STREAMS:
        await connection.purge(stream, ">")
    yield connection
    await connection.close()


@pytest.fixture
async def database(pg_dsn: str) -> AsyncIterator[Database]:
    """A database that has today's schema, and no rows."""
    database = Database(pg_dsn)
    await database.open()
    yield database
    await database.close()
