"""A broker per test: the module's nats-server, with empty streams."""

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
    """The wire over which the test calls its gateways; the test runs once over each wire."""
    return cast(WireName, request.param)


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    """A connection to a broker with existing, empty streams."""
    connection = await Connection.connect([nats_url], "test")
    await ensure_streams(connection)
    for stream in subjects.STREAMS:
        await connection.purge(stream, ">")
    yield connection
    await connection.close()


@pytest.fixture
async def database(pg_dsn: str) -> AsyncIterator[Database]:
    """A database with the current schema and no rows."""
    database = Database(pg_dsn)
    await database.open()
    yield database
    await database.close()
