"""Streams that a server of the cluster does not know yet, because another superlink makes them now."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from flower_nats.broker.connection import Connection

STREAM = "FN_LATE"


@pytest.fixture
async def missing(connection: Connection) -> AsyncIterator[str]:
    yield STREAM
    await connection.ask(f"$JS.API.STREAM.DELETE.{STREAM}", b"")


async def test_a_stream_that_is_about_to_be_there_is_waited_for(
    connection: Connection, missing: str
) -> None:
    asked = asyncio.gather(
        connection.info(missing),
        connection.purge(missing, "late"),
        connection.last(missing, "late"),
        connection.subjects(missing, "late"),
    )
    while connection.retries < 4:
        await asyncio.sleep(0.01)
    assert not asked.done()

    await connection.ensure_stream({"name": missing, "subjects": ["late"], "num_replicas": 1})

    _, purged, newest, subjects = await asked
    assert (purged, newest, subjects) == (0, None, [])
