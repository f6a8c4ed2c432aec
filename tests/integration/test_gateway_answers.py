"""Answers leave a gateway in one piece: a gateway that dies has answered fully, or not at all.

A balancer cannot repeat a call after half of its answer, and clients die of half an answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

from flower_nats_gateway.calls import body_limit
from flower_nats_gateway.calls.body_limit import PLACES
from harness.channels import GrpcChannel, WireName
from harness.frames import Frames
from harness.messages import instruction
from tests.integration.gateways import running_stack

CALLS = 20


class Relay:
    """A line to a server that counts the pieces of each answer."""

    def __init__(self, server: str) -> None:
        self.pieces: Counter[int] = Counter()
        """Pieces by HTTP/2 stream."""
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._server.split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        for way in (self._pump(reader, far_writer), self._pump_answers(far_reader, writer)):
            self._tasks.add(asyncio.create_task(way))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024 * 1024):
            writer.write(data)

    async def _pump_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        frames = Frames()
        while data := await reader.read(1024 * 1024):
            self.pieces.update({frame.stream for frame in frames.feed(data) if frame.stream})
            writer.write(data)


@asynccontextmanager
async def relay(server: str) -> AsyncIterator[tuple[Relay, GrpcChannel]]:
    one = Relay(server)
    listener = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    channel = GrpcChannel(f"127.0.0.1:{port}")
    try:
        yield one, channel
    finally:
        await channel.close()
        listener.close()
        await one.close()


async def test_over_grpc_an_object_leaves_in_one_piece(nats_url: str, pg_dsn: str) -> None:
    async with (
        running_stack(nats_url, pg_dsn) as gateway,
        relay(gateway.settings.fleet_api_address) as (counting, channel),
    ):
        node, app = await gateway.node(), await gateway.server_app()
        model = RecordDict({"model": ArrayRecord([np.full(1000, 1.5)])})
        question = instruction(app.run_id, node.node_id, model)
        await app.send(question)
        assert await node.pull() is not None
        gateway.channels["Fleet"] = channel

        for object_id in [*question.objects] * (CALLS // len(question.objects)):
            assert (await node.pull_object(app.run_id, object_id)).object_available

        assert set(counting.pieces.values()) == {1}


async def test_many_large_objects_leave_without_waiting_for_each_other_for_long(
    nats_url: str, pg_dsn: str, wire: WireName, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With this, a place that is freed only after some time would be held for ever.
    monkeypatch.setattr(body_limit, "SLOW", 3600.0)
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        node, app = await gateway.node(), await gateway.server_app()
        model = RecordDict({"model": ArrayRecord([np.full(100_000, 1.5)])})
        question = instruction(app.run_id, node.node_id, model)
        await app.send(question)
        large = max(question.objects, key=lambda one: len(question.objects[one]))

        pulls = [node.pull_object(app.run_id, large) for _ in range(20 * PLACES)]
        assert all(one.object_available for one in await asyncio.gather(*pulls))
