"""One server under chaos, from its start to its figures."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from benchmarks.chaos import real
from benchmarks.chaos.kills import Killer
from benchmarks.chaos.load import Load, Run
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.report import faults
from benchmarks.chaos.result import Result, result
from benchmarks.chaos.servers import SERVERS, Servers
from harness.supernodes import fab

_LOOK_BACK_SECONDS = 120.0


async def endure(target: str, plan: Plan) -> Result:
    """Start a server, put it under load and chaos, and count what has happened."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        servers = await stack.enter_async_context(SERVERS[target](folder, plan))
        nodes = await stack.enter_async_context(real.supernodes(servers.addresses, plan, folder))
        load = Load(servers.addresses, plan, fab(), nodes)
        stack.push_async_callback(load.close)
        await load.join()
        return await _endure(servers, plan, load)


async def _endure(servers: Servers, plan: Plan, load: Load) -> Result:
    began = time.monotonic()
    tell = _teller(servers.name, began)
    killer = Killer(servers.marks, plan, tell)
    chaos = asyncio.create_task(killer.run(), name="chaos")
    ended: list[Run] = []

    def note(run: Run) -> None:
        ended.append(run)
        trouble = run.given_up or (run.app.death and f"died: {run.app.death}")
        if trouble or len(ended) % 10 == 0:
            tell(
                f"{len(ended)} of {plan.runs} runs ended{f', the last {trouble}' if trouble else ''}"
            )

    await load.work(note)
    seconds = time.monotonic() - began
    chaos.cancel()
    with suppress(asyncio.CancelledError):
        await chaos
    await killer.settle()
    async with asyncio.timeout(_LOOK_BACK_SECONDS):
        await load.look_back()
        gone = await load.nodes_gone()
    counted = result(servers.name, seconds, killer.faults, killer.failed_starts, load, gone)
    print(faults(counted, began), flush=True)
    return counted


def _teller(name: str, began: float) -> Callable[[str], None]:
    def tell(text: str) -> None:
        print(f"{name} {time.monotonic() - began:6.1f} s  {text}", flush=True)

    return tell
