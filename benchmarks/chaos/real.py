"""Real SuperNodes among the simulated ones: `flower-supernode`, with a ClientApp process per message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.chaos.load import wires
from benchmarks.chaos.plan import Plan
from harness.supernodes import StockSuperNode


@asynccontextmanager
async def supernodes(
    addresses: Mapping[str, str], plan: Plan, folder: Path
) -> AsyncIterator[list[StockSuperNode]]:
    """Run the real nodes while the context lasts; their numbers follow those of simulated nodes."""
    nodes = []
    for number in range(plan.nodes - plan.real_nodes + 1, plan.nodes + 1):
        wire = wires(addresses)[number % len(wires(addresses))]
        address = addresses["Http" if wire == "http" else "Fleet"]
        nodes.append(StockSuperNode(number, wire, address, folder))
    try:
        await asyncio.gather(*(node.until_online() for node in nodes))
        yield nodes
    finally:
        await asyncio.gather(*(node.kill() for node in nodes))
