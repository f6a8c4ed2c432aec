"""The load generator: many simulated SuperNodes in one process, told what to do line by line.

Started by the harness as ``python -m benchmarks.loadgen '{"address": …, "nodes": …, "bytes": …}'``.
Commands: ``join`` (register, activate, poll), ``prepare`` (make the next replies),
``tally`` (what was done so far). It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.fleet import Tally
from benchmarks.node import SimulatedNode
from benchmarks.worker import reserve_stdout

_JOINING_AT_ONCE = 32


class Generator:
    """The nodes, and the commands on them."""

    def __init__(self, address: str, nodes: int, reply_size: int) -> None:
        self._tally = Tally()
        # One node checks every content it pulls; the hashing of all would crowd the server out.
        self._nodes = [
            SimulatedNode(address, reply_size, self._tally, verify=index == 0)
            for index in range(nodes)
        ]
        self._lives: list[asyncio.Task[None]] = []

    async def join(self) -> dict[str, object]:
        gate = asyncio.Semaphore(_JOINING_AT_ONCE)

        async def join(node: SimulatedNode) -> None:
            async with gate:
                await node.join()
                self._lives.append(asyncio.create_task(node.live()))

        await asyncio.gather(*(join(node) for node in self._nodes))
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


async def serve(arguments: Mapping[str, Any]) -> None:
    """Do what standard input says until it ends."""
    answer = reserve_stdout()
    generator = Generator(arguments["address"], arguments["nodes"], arguments["bytes"])
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
    asyncio.run(serve(json.loads(sys.argv[1])))
