"""What browsers that watch a run cost a runtime that is up already.

``python -m benchmarks.console --data-dir DATA --run RUN_ID`` beside ``flower-nats up --data-dir DATA``
while the run goes on: the processor time of its processes without browsers and with them, and how long
the page of the run and its timeline take.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.processes import cpu_seconds
from flower_nats_cli.datadir import DataDir

_PAGES = 5
"""Times that a page is asked for, of which the middle one is told."""

_PATIENCE = 30.0
"""Seconds that one page may take."""


async def watch(client: httpx.AsyncClient, run: str) -> None:
    """Do as the page of a run does in a browser, until cancelled."""
    while True:
        async with client.stream("GET", "/live", params={"run": run}, timeout=None) as events:
            async for line in events.aiter_lines():
                if line.startswith("data: ") and line != "data: begun":
                    await asyncio.gather(
                        client.get(f"/runs/{run}"),
                        client.get(f"/runs/{run}/timeline.json"),
                        client.get(f"/runs/{run}/log.json?after={2**53}"),
                    )


async def share_of_a_core(processes: Sequence[psutil.Process], seconds: float) -> float:
    """Return the share of a core that these processes take meanwhile."""
    before, began = cpu_seconds(processes), time.monotonic()
    await asyncio.sleep(seconds)
    return (cpu_seconds(processes) - before) / (time.monotonic() - began)


async def middle_seconds(client: httpx.AsyncClient, path: str) -> float:
    """Return how long a page takes, in the middle of some."""
    took = []
    for _ in range(_PAGES):
        began = time.monotonic()
        (await client.get(path)).raise_for_status()
        took.append(time.monotonic() - began)
        # Beyond the time for which the console gives an answer again.
        await asyncio.sleep(1)
    return sorted(took)[_PAGES // 2]


async def measure(data: DataDir, console: str, run: str, browsers: int, seconds: float) -> None:
    """Measure and print."""
    pids = {name: pid for name, pid in data.processes().items() if pid is not None}
    # The ServerApp of the run belongs to the SuperExec; its work is none of the runtime's.
    processes = [
        psutil.Process(pid) for name, pid in pids.items() if not name.startswith("superexec")
    ]
    if not processes:
        sys.exit(f"No runtime is up on {data.path}.")
    async with httpx.AsyncClient(base_url=console, timeout=_PATIENCE) as client:
        for path in (f"/runs/{run}", f"/runs/{run}/timeline.json"):
            print(f"{path}: {await middle_seconds(client, path):.3f} s", flush=True)
        alone = await share_of_a_core(processes, seconds)
        watching = [asyncio.create_task(watch(client, run)) for _ in range(browsers)]
        await asyncio.sleep(2)
        watched = await share_of_a_core(processes, seconds)
        for one in watching:
            one.cancel()
            with suppress(asyncio.CancelledError):
                await one
    print(f"{browsers} browsers: {watched:.3f} of a core, {watched - alone:+.3f} beside none")


def main() -> None:
    """Measure what browsers cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="of `flower-nats up`")
    parser.add_argument("--run", required=True, help="the id of the run to watch")
    parser.add_argument("--console", default="http://127.0.0.1:9090", help="where the console is")
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of two measurements")
    options = parser.parse_args()
    data = DataDir(options.data_dir)
    asyncio.run(measure(data, options.console, options.run, options.browsers, options.seconds))


if __name__ == "__main__":
    main()
