"""Measure what browsers that watch a run cost the runtime.

``python -m benchmarks.console`` starts a runtime with a console, nodes and a run that goes round by
round. It measures the runtime's processes without browsers, twice with them, and without them
again, each over the same number of rounds, so growth during the run cancels out. The cost of the
browser itself is not measured: a client makes the requests of a run's page instead.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import httpx

from benchmarks.flower import VERSIONS, flower
from benchmarks.processes import free_address
from benchmarks.scenarios import fleet_of, server_app_of
from benchmarks.targets import FlowerNats
from benchmarks.worker import Worker
from flower_nats.store.connection import Database
from harness.flower import HTTP, Flower

_PAGES = 5
"""Number of requests for a page; the median time is printed."""

_PATIENCE = 120.0
"""Seconds that one page, or one step of the nodes, may take."""

_BEGIN = 2.0
"""Seconds until new browsers make requests, and browsers that have left make none."""

_BOUND = 0.05
"""The promised share of a core for ten browsers on a run of a hundred nodes."""


_LARGE_HISTORY = (1000, 100)
"""Nodes and rounds of a run for which each page is promised in less than a second."""

_WRITE_HISTORY = """
INSERT INTO exchange (
    run_id, exchange_id, node_id, session_id, message_type, group_id, put_out_at, taken_at,
    answered_at, outcome, reason, bytes_sent, bytes_recv
)
SELECT %(run)s, 1000000 + 1001 * round + node, 1000000 + node, 1000000 + round, 'train', '',
    now() + make_interval(secs => 10 * round), now() + make_interval(secs => 10 * round + 1),
    now() + make_interval(secs => 10 * round + 2 + node %% 7), 'answered', '', 1000, 1000
FROM generate_series(1, %(rounds)s) AS round, generate_series(1, %(nodes)s) AS node
"""


class WithConsole(FlowerNats):
    """``flower-nats up`` with its console."""

    def __init__(self, directory: Path, stock: Flower) -> None:
        super().__init__(directory, stock)
        self.console = free_address()

    def console_address(self) -> str:
        return self.console

    async def write_history(self, run: str, nodes: int, rounds: int) -> None:
        """Write exchanges into the database that never happened."""
        postgres = self.directory / "data" / "postgres"
        password = (postgres / "password").read_text().strip()
        sockets = quote((postgres / "data" / "postmaster.pid").read_text().splitlines()[4], safe="")
        database = Database(f"postgresql://flower:{password}@/postgres?host={sockets}")
        await database.open()
        try:
            await database.execute(_WRITE_HISTORY, run=int(run), nodes=nodes, rounds=rounds)
            await database.execute("ANALYZE exchange")
        finally:
            await database.close()


class Rounds:
    """A run that goes on: every few seconds, all nodes get an instruction and answer."""

    def __init__(self, fleet: Worker, server_app: Worker, interval: float) -> None:
        self._fleet, self._server_app, self._interval = fleet, server_app, interval
        self._nodes: list[int] = []
        self._number = 0

    def begin(self) -> None:
        """Have the ServerApp claim its task and the nodes come online."""
        self._server_app.ask("start", _PATIENCE)
        self._nodes = self._fleet.ask("join", _PATIENCE)["nodes"]

    async def go_on(self) -> None:
        """Play rounds until cancelled."""
        while True:
            began = time.monotonic()
            await asyncio.to_thread(self._play)
            await asyncio.sleep(max(0.0, self._interval - (time.monotonic() - began)))

    def _play(self) -> None:
        self._number += 1
        self._fleet.ask("prepare", _PATIENCE)
        self._server_app.ask(
            "exchange",
            _PATIENCE,
            nodes=self._nodes,
            size=1000,
            timeout=_PATIENCE,
            group=str(self._number),
        )


async def watch(base: str, run: str) -> None:
    """Make the requests of a run's page in a browser, until cancelled."""
    async with httpx.AsyncClient(base_url=base, timeout=_PATIENCE) as client:
        while True:
            async with client.stream("GET", "/live", params={"run": run}, timeout=None) as events:
                async for line in events.aiter_lines():
                    if line.startswith("data: ") and line != "data: begun":
                        await asyncio.gather(
                            client.get(f"/runs/{run}", headers={"hx-request": "true"}),
                            client.get(f"/runs/{run}/timeline.json"),
                            client.get(f"/runs/{run}/log.json?after=0"),
                        )


async def spent(target: FlowerNats, seconds: float) -> Counter[str]:
    """Return the share of a core of each part of the runtime over so many seconds."""
    before, began = target.cpu_seconds(), time.monotonic()
    await asyncio.sleep(seconds)
    after, took = target.cpu_seconds(), time.monotonic() - began
    return Counter({part: (after[part] - before.get(part, 0.0)) / took for part in after})


async def middle_seconds(base: str, path: str) -> float:
    """Return the median time of a page."""
    took = []
    async with httpx.AsyncClient(base_url=base, timeout=_PATIENCE) as client:
        for _ in range(_PAGES):
            began = time.monotonic()
            (await client.get(path)).raise_for_status()
            took.append(time.monotonic() - began)
            # Longer than the console keeps an answer.
            await asyncio.sleep(1)
    return sorted(took)[_PAGES // 2]


async def measure(
    target: WithConsole, rounds: Rounds, run: str, browsers: int, seconds: float
) -> None:
    """Measure and print."""
    base = f"http://{target.console}"
    pages = (f"/runs/{run}", f"/runs/{run}/timeline.json")
    playing = asyncio.create_task(rounds.go_on())
    alone, watched = Counter[str](), Counter[str]()
    try:
        for path in pages:
            print(f"{path}: {await middle_seconds(base, path):.3f} s", flush=True)
        alone += await spent(target, seconds)
        watching = [asyncio.create_task(watch(base, run)) for _ in range(browsers)]
        try:
            await asyncio.sleep(_BEGIN)
            watched += await spent(target, seconds)
            watched += await spent(target, seconds)
        finally:
            await ended(*watching)
        await asyncio.sleep(_BEGIN)
        alone += await spent(target, seconds)
    finally:
        await ended(playing)
    for part in sorted(watched):
        print(f"{part:12} {alone[part] / 2:7.3f} without, {watched[part] / 2:7.3f} with browsers")
    more = (watched.total() - alone.total()) / 2
    print(f"{browsers} browsers: {more:+.3f} of a core in sum (promised: at most {_BOUND})")
    await target.write_history(run, *_LARGE_HISTORY)
    for path in pages:
        took = await middle_seconds(base, path)
        print(f"{path} of 1,000 nodes and 100 rounds: {took:.3f} s (promised: less than 1)")


async def ended(*tasks: asyncio.Task[None]) -> None:
    """End tasks, and raise what they have raised."""
    for one in tasks:
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one


def main() -> None:
    """Measure what browsers cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds from round to round")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of four measurements")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = stack.enter_context(WithConsole(directory, flower(VERSIONS[HTTP])))
        fleet = stack.enter_context(fleet_of(target, options.nodes, 1000))
        server_app, run_id = stack.enter_context(server_app_of(target))
        rounds = Rounds(fleet, server_app, options.interval)
        rounds.begin()
        asyncio.run(measure(target, rounds, str(run_id), options.browsers, options.seconds))


if __name__ == "__main__":
    main()
