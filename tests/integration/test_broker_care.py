"""A NATS server that keeps refusing to store is restarted once it can store."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from pathlib import Path

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.streams import ensure_streams
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.model.errors import FlowerNatsError
from flower_nats_cli.broker_care import BrokerCare
from flower_nats_cli.supervisor import Supervisor
from harness.children import PATIENCE

CONTENT = bytes(1_000_000)
"""A few of these fill a file of the server, which then has to open another file."""


async def test_a_server_that_ran_out_of_file_descriptors_stores_again(tmp_path: Path) -> None:
    server, supervisor = NatsServer(tmp_path), Supervisor()
    await supervisor.start([server], grace=5)
    supervisor.watch()
    supervisor.accompany("care", BrokerCare([server], tmp_path).run())
    try:
        connection = await Connection.connect([server.url], "test")
        await ensure_streams(connection)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, 3))
        acknowledged = await store_until_refused(connection)

        async with asyncio.timeout(PATIENCE):
            for stream in subjects.STREAMS:
                await connection.store(subjects.trial(stream), b"", patience=PATIENCE)

        kept = await connection.subjects(subjects.OBJECTS_STREAM, subjects.objects(1))
        assert acknowledged
        assert set(acknowledged) <= set(kept)
        await connection.close()
    finally:
        await supervisor.stop()


async def store_until_refused(connection: Connection) -> list[str]:
    """Store objects until the server refuses; return the acknowledged subjects."""
    acknowledged: list[str] = []
    with suppress(FlowerNatsError):
        while len(acknowledged) < 100:
            subject = subjects.object_chunk(1, "0" * 64, len(acknowledged))
            await connection.store(subject, CONTENT, patience=1, await_room=False)
            acknowledged.append(subject)
    assert len(acknowledged) < 100, "the server was not refused anything"
    return acknowledged
