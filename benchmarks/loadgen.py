"""The load generator: many simulated SuperNodes in one process, told what to do line by line.

Started by the harness as ``python -m benchmarks.loadgen '{"wire": …, "version": …, "address": …,
"certificate": …, "nodes": …, "reply_size": …}'``.
Commands: ``join`` (register, activate, poll), ``prepare`` (make the next replies),
``tally`` (what was done so far). It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import uvloop

from benchmarks.fleet import Tally, Wire
from benchmarks.http_client import tls_context
from benchmarks.node import SimulatedNode
from benchmarks.stock.pipes import reserve_stdout
from benchmarks.wire_grpc import GrpcWire
from benchmarks.wire_http import HttpWire
from harness.flower import GRPC

_JOINING_AT_ONCE = 32


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
    ) -> None:
        self._tally = Tally()
        open_wire = _opener(wire, version, address, certificate, self._tally)
        # One node checks every content it pulls; the hashing of all would crowd the server out.
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

        # None polls before all are in: a server that cannot keep up with the polls lets nobody in.
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

    async def tally(self) -> dict[str, object]:
        return dict(vars(self._tally))

    async def leave(self) -> None:
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)


def _opener(
    wire: str, version: str, address: str, certificate: str | None, tally: Tally
) -> Callable[[bytes], Wire]:
    """How a node with some public key reaches the server."""
    tls = tls_context(certificate)

    def open_wire(public_key: bytes) -> Wire:
        if wire == GRPC:
            return GrpcWire(address, version, public_key)
        return HttpWire(address, version, public_key, tally, tls)

    return open_wire


async def serve(arguments: Mapping[str, Any]) -> None:
    """Do what standard input says until it ends."""
    answer = reserve_stdout()
    generator = Generator(**arguments)
    actions = {
        "join": generator.join,
        "prepare": generator.prepare,
        "tally": generator.tally,
    }
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer(await actions[json.loads(line)["do"]]())
    finally:
        await generator.leave()


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
