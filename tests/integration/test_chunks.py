"""Contents of many chunks, against a real broker, which cuts off clients that read too slowly."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from flower_nats.broker import chunks, subjects
from flower_nats.broker.connection import WINDOW, Connection
from flower_nats.broker.large_bodies import LargeBodies
from flower_nats.broker.objects import Objects
from flower_nats.model.errors import FlowerNatsError, Unavailable

RUN = 5
MEGABYTES = 72
"""More than the 64 MB that a nats-server keeps for a client that does not read."""

LARGE = b"".join(bytes([number]) * chunks.CHUNK for number in range(MEGABYTES))


@pytest.fixture
async def objects(connection: Connection) -> AsyncIterator[Objects]:
    yield Objects(connection)
    await connection.purge(subjects.OBJECTS_STREAM, subjects.OBJECTS_SUBJECTS)


async def test_large_objects_come_and_go_by_a_connection_that_stays(
    connection: Connection, objects: Objects
) -> None:
    with capture_logs() as logged:
        await objects.store(RUN, "a", LARGE)
        found = await asyncio.gather(*(objects.get(RUN, "a") for _ in range(3)))

    digests = {hashlib.sha256(one or b"").digest() for one in found}
    assert digests == {hashlib.sha256(LARGE).digest()}
    assert logged == []
    assert connection.retries == 0


async def test_a_large_body_comes_and_goes_by_a_connection_that_stays(
    connection: Connection,
) -> None:
    bodies = LargeBodies(connection)
    with capture_logs() as logged:
        ticket = await bodies.put(LARGE)
        assert await bodies.get(ticket) == LARGE
    assert logged == []
    bodies.drop(ticket)


async def test_a_small_object_does_not_wait_for_all_of_a_large_one(
    connection: Connection, objects: Objects
) -> None:
    large = asyncio.create_task(objects.store(RUN, "large", LARGE))
    await asyncio.sleep(0)
    await objects.store(RUN, "small", LARGE[: 2 * chunks.CHUNK])
    assert not large.done()
    await large


async def test_a_transfer_that_fails_leaves_no_place_taken(
    connection: Connection, objects: Objects
) -> None:
    await objects.store(RUN, "a", LARGE[: 3 * chunks.CHUNK])
    await connection.purge(subjects.OBJECTS_STREAM, subjects.object_chunk(RUN, "a", 1))
    with pytest.raises(Unavailable):
        await objects.get(RUN, "a")
    with pytest.raises(FlowerNatsError):
        await chunks.store(connection, lambda _: "fn.obj.1.x.0", [bytes(9 * chunks.CHUNK)] * WINDOW)
    ended = asyncio.create_task(objects.store(RUN, "b", LARGE))
    await asyncio.sleep(0)
    ended.cancel()
    await asyncio.wait({ended})

    await objects.store(RUN, "c", LARGE[: WINDOW * chunks.CHUNK])
    assert await objects.get(RUN, "c") == LARGE[: WINDOW * chunks.CHUNK]
