"""A broker per test: the module's nats-server, with streams that are empty."""

from collections.abc import AsyncIterator

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.streams import ensure_streams


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    """A connection to a broker whose streams exist and hold nothing."""
    connection = await Connection.connect([nats_url], "test")
    await ensure_streams(connection)
    for stream in (
        subjects.MESSAGES_STREAM,
        subjects.OBJECTS_STREAM,
        subjects.LOGS_STREAM,
        subjects.BLOBS_STREAM,
    ):
        await connection.purge(stream, ">")
    yield connection
    await connection.close()
