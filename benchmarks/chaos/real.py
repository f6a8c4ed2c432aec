"""Real SuperNodes among the simulated ones: `flower-supernode`, with a ClientApp process per message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.chaos.plan import Plan
from tests.harness.supernodes import StockSuperNode


@asynccontextmanager
async def supernodes(fleet: str, plan: Plan, folder: Path) -> AsyncIterator[list[StockSuperNode]]:
    """Run the real nodes as long as the context; their numbers come after the simulated ones'."""
    numbers = range(plan.nodes - plan.real_nodes + 1, plan.nodes + 1)
    nodes = [StockSuperNode(number, "grpc", fleet, folder) for number in numbers]
    try:
        await asyncio.gather(*(node.until_online() for node in nodes))
        yield nodes
    finally:
        await asyncio.gather(*(node.kill() for node in nodes))
