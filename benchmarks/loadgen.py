"""The load generator: many simulated SuperNodes in one process, which takes one command a line.

The harness starts it as ``python -m benchmarks.loadgen '{"wire": …, "version": …, "address": …,
"certificate": …, "nodes": …, "reply_size": …}'``.
Commands: ``join`` (register, activate, poll), ``prepare`` (make the next replies),
``prepare_return`` and ``reconnect`` (break all connections, and come back),
``tally`` (the counts so far). The generator ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

from benchmarks.fleet import Tally, Wire
from benchmarks.http_client import tls_context
from benchmarks.node import SimulatedNode
from benchmarks.stock.pipes import reserve_stdout
from benchmarks.wire_grpc import GrpcWire
from benchmarks.wire_grpc_light import LightGrpcWire
from benchmarks.wire_http import HttpWire
from harness.flower import GRPC

_JOINING_AT_ONCE = 32

_RETURN_WITHIN = 1.0
"""Seconds within which a stock node repeats a call after its connection broke: flwr's first back-off."""

_LOOK_EVERY = 0.5
"""Seconds between two counts of online nodes: each count costs some milliseconds."""


class Generator:
    """The nodes, and the commands on them."""

    def __init__(
        self,
        wire: str,
        version: str,
        address: str,
        certificate: str | None,
        nodes: int,
        reply_size: int,
        light: bool = False,
    ) -> None:
        self._tally = Tally()
        open_wire = _opener(wire, version, address, certificate, self._tally, light)
        # One node alone checks the content that it pulls: hashing takes CPU from the server.
        self._nodes = [
            SimulatedNode(open_wire, reply_size, self._tally, verify=index == 0)
            for index in range(nodes)
        ]
        self._lives: list[asyncio.Task[None]] = []

    async def join(self) -> dict[str, object]:
        gate = asyncio.Semaphore(_JOINING_AT_ONCE)

        async def join(node: SimulatedNode) -> None:
            async with gate:
                await node.join()

        # No node polls before all have joined: a server that is busy with polls admits no node.
        await asyncio.gather(*(join(node) for node in self._nodes))
        self._lives = [asyncio.create_task(node.live()) for node in self._nodes]
        await asyncio.gather(*(node.polling.wait() for node in self._nodes))
        return {"nodes": [node.node_id for node in self._nodes]}

    async def prepare(self) -> dict[str, object]:
        for node in self._nodes:
            node.prepare()
            # Polls and heartbeats go on meanwhile.
            await asyncio.sleep(0)
        gc.collect()
        return {}

    async def prepare_return(self) -> dict[str, object]:
        for node in self._nodes:
            node.prepare_return()
            # Polls and heartbeats go on meanwhile.
            await asyncio.sleep(0)
        gc.collect()
        return {}

    async def reconnect(self, within: float) -> dict[str, object]:
        """Break all connections at once, let every node come back, and wait until all are online.

        The wait ends after ``within`` seconds, too, or once every node is online or dead.
        """
        self._tally.errors.clear()
        start = time.monotonic()
        await self.leave()
        cut = time.monotonic() - start
        self._tally.turned_away.clear()
        self._tally.late_heartbeats = 0
        self._lives = [
            asyncio.create_task(node.come_back(random.uniform(0, _RETURN_WITHIN)))
            for node in self._nodes
        ]
        online: list[float] = []
        dead = 0
        while len(online) + dead < len(self._nodes) and time.monotonic() - start < within:
            await asyncio.sleep(_LOOK_EVERY)
            now = time.monotonic()
            # An online node may still die, or its poll may still be turned away.
            dead = sum(life.done() for life in self._lives)
            since = [
                node.online_since(now)
                for node, life in zip(self._nodes, self._lives, strict=True)
                if not life.done()
            ]
            online = sorted(at - start for at in since if at is not None)
        failures = [life.exception() for life in self._lives if life.done()]
        return {
            "cut": cut,
            "online": online,
            "dead": [*self._tally.errors, *(repr(one) for one in failures if one is not None)],
            "turned_away": self._tally.turned_away,
            "late_heartbeats": self._tally.late_heartbeats,
        }

    async def tally(self) -> dict[str, object]:
        return dict(vars(self._tally))

    async def leave(self) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)


def _opener(
    wire: str, version: str, address: str, certificate: str | None, tally: Tally, light: bool
) -> Callable[[bytes], Wire]:
    """Return a function that opens the wire of a node with some public key."""
    tls = tls_context(certificate)

    def open_wire(public_key: bytes) -> Wire:
        if wire == GRPC and light:
            return LightGrpcWire(address, version, public_key, tally)
        if wire == GRPC:
            return GrpcWire(address, version, public_key)
        return HttpWire(address, version, public_key, tally, tls)

    return open_wire


async def serve(arguments: Mapping[str, Any]) -> None:
    """Obey the commands on standard input until it ends."""
    answer = reserve_stdout()
    generator = Generator(**arguments)
    actions: dict[str, Callable[..., Awaitable[dict[str, object]]]] = {
        "join": generator.join,
        "prepare": generator.prepare,
        "prepare_return": generator.prepare_return,
        "reconnect": generator.reconnect,
        "tally": generator.tally,
    }
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            answer(await actions[command.pop("do")](**command))
    finally:
        await generator.leave()


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
