"""``python -m benchmarks.local``: `flwr run` with the local connection, on stock and on flower-nats.

The run is a simulation of 20 SuperNodes and three empty rounds, with the newest known flwr. The
table shows the time from the command to its end, twice on each server, and the memory of the idle
server. The third column is flower-nats with a Ray that runs all the time (`ray start --head`,
RAY_ADDRESS).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.processes import Child, ChildFailed, executable, free_address, memory
from harness.environment import accepts_connections, clean_environment

_APP = Path(__file__).parents[1] / "tests" / "e2e" / "apps" / "simulated"
_RUN_SECONDS = 300.0
"""A run is given up after this time."""
_RAY_SECONDS = 120.0
"""Time for a kept Ray to start."""
_STEPS = (
    ("submitted", "Successfully started run"),
    ("flwr-simulation up", "Starting Flower Simulation"),
    ("app begins", "nodes of flwr"),
    ("round 1", "round 1:"),
    ("last round", ""),
)
"""The steps of a run, and the words in the output that mark each of them."""

_KB = 1000


@dataclass
class Cell:
    """The measurements of one server."""

    start: float = 0.0
    """Seconds of the command that starts it; the first `flwr run` starts stock."""
    runs: list[list[float]] = field(default_factory=list)
    """For each run, the times of its steps and of its end, in seconds since the command."""
    idle_mb: float = 0.0
    """Proportional memory of all its processes, after the last run."""


def steps(lines: Iterator[tuple[float, str]], rounds: int) -> list[float]:
    """Return the time of each step, from lines and their times in seconds.

    Raises:
        ChildFailed: a step was not reached.
    """
    words = [word or f"round {rounds}:" for _, word in _STEPS]
    reached: list[float] = []
    said: list[str] = []
    for seconds, line in lines:
        said.append(line)
        # One line may be two steps: with one round, the first round is the last.
        while len(reached) < len(words) and words[len(reached)] in line:
            reached.append(seconds)
    if len(reached) < len(words):
        raise ChildFailed(f"the run did not say {words[len(reached)]!r}:\n" + "".join(said[-20:]))
    return reached


class Server:
    """The server of `flwr`'s local connection, with a Flower home of its own."""

    name = "flower-nats"

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        ports = [free_address().rpartition(":")[2] for _ in range(2)]
        self.variables = {
            "FLWR_HOME": str(self.home),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
            "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
            # All dependencies of the app are installed; a benchmark uses no package registry.
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        }

    def start(self) -> None:
        """Start the server, unless `flwr` starts it."""
        self._call("flower-nats", "local", "start")

    def stop(self) -> None:
        """End the server."""
        self._call("flower-nats", "local", "stop")

    def roots(self) -> list[psutil.Process]:
        """Return the root processes of the server."""
        lock = self.home / "local-superlink" / "flower-nats" / "up.lock"
        return [psutil.Process(int(lock.read_text().split()[0]))]

    def run(self, nodes: int, rounds: int) -> list[float]:
        """Run the app to its end; return the times of its steps and of its end."""
        config = f"num-supernodes={nodes} client-resources-num-cpus=1"
        began = time.monotonic()
        with subprocess.Popen(
            [
                *(executable("flwr"), "run", str(_APP), "--stream", "--federation-config", config),
                *("--run-config", f"nodes={nodes} rounds={rounds}"),
            ],
            env=clean_environment(self.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as command:
            assert command.stdout is not None
            lines = ((time.monotonic() - began, line) for line in command.stdout)
            reached = steps(lines, rounds)
        return [*reached, time.monotonic() - began]

    def await_rest(self) -> None:
        """Wait until all processes of a simulation have ended."""
        deadline = time.monotonic() + _RUN_SECONDS
        while any("flwr-simulation" in " ".join(_words(one)) for one in self._family()):
            if time.monotonic() > deadline:
                raise ChildFailed("flwr-simulation does not end")
            time.sleep(0.2)

    def memory(self) -> float:
        """Return the server's proportional memory, in MB."""
        return memory(self._family()).pss / _KB**2

    def _family(self) -> list[psutil.Process]:
        return [one for root in self.roots() for one in [root, *root.children(recursive=True)]]

    def _call(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [executable(program), *words],
            env=clean_environment(self.variables),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ChildFailed(f"{program} {' '.join(words)}: {done.stdout}{done.stderr}")


class Stock(Server):
    """The `flower-superlink --simulation` that `flwr` starts by itself and never ends."""

    name = "stock"

    def start(self) -> None:
        pass

    def roots(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter() if self._is_superlink(one)]

    def stop(self) -> None:
        family = self._family()
        for process in family:
            with suppress(psutil.Error):
                process.terminate()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            with suppress(psutil.Error):
                process.kill()

    def _is_superlink(self, process: psutil.Process) -> bool:
        words = _words(process)
        port = self.variables["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]
        return any(Path(word).name == "flower-superlink" for word in words[:2]) and port in words


class KeptRay(Server):
    """flower-nats, with a Ray that runs before, during and after the runs."""

    name = "flower-nats, Ray kept"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder
        self._address = free_address()
        self.variables["RAY_ADDRESS"] = self._address

    def start(self) -> None:
        self._ray = start_ray(self._address, self._folder)
        super().start()

    def stop(self) -> None:
        super().stop()
        self._ray.stop()

    def roots(self) -> list[psutil.Process]:
        return [*super().roots(), *self._ray.tree()[:1]]


SERVERS: Mapping[str, type[Server]] = {"stock": Stock, "flower-nats": Server, "kept-ray": KeptRay}


def start_ray(address: str, folder: Path) -> Child:
    """Start a Ray that ends with this process, and wait until it serves."""
    port = address.rpartition(":")[2]
    ray = Child.start(
        [
            *(executable("ray"), "start", "--head", "--block", "--port", port),
            *("--include-dashboard", "false", "--disable-usage-stats"),
            # Other programs that look for a Ray must not find this one.
            *("--temp-dir", str(folder / "ray")),
        ],
        folder / "ray.log",
    )
    deadline = time.monotonic() + _RAY_SECONDS
    while not (accepts_connections(address) and "runtime started" in ray.log.read_text()):
        ray.check()
        if time.monotonic() > deadline:
            ray.stop()
            raise ChildFailed(f"Ray has not come up: {ray.tail()}")
        time.sleep(0.1)
    return ray


@contextmanager
def running(kind: type[Server], cell: Cell) -> Iterator[Server]:
    """Start a server in a folder of its own; note the time that it takes."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        server = kind(Path(folder))
        began = time.monotonic()
        stack.callback(server.stop)
        server.start()
        cell.start = time.monotonic() - began
        yield server


def measure(kind: type[Server], nodes: int, rounds: int) -> Cell:
    """Measure one server: two runs, and the memory after them."""
    cell = Cell()
    with running(kind, cell) as server:
        for _ in range(2):
            cell.runs.append(server.run(nodes, rounds))
            server.await_rest()
        cell.idle_mb = server.memory()
    return cell


def table(measured: Mapping[str, Sequence[Cell]]) -> str:
    """Return the medians as a table."""
    rows = [
        ("start", lambda cells: _seconds([cell.start for cell in cells])),
        ("first run", lambda cells: _seconds([cell.runs[0][-1] for cell in cells])),
        ("second run", lambda cells: _seconds([cell.runs[1][-1] for cell in cells])),
        *(
            (f"second run: {name}", lambda cells, at=at: _seconds(_spans(cells, at)))
            for at, name in enumerate([*(name for name, _ in _STEPS), "end"])
        ),
        (
            "memory at rest",
            lambda cells: f"{statistics.median(cell.idle_mb for cell in cells):.0f} MB",
        ),
    ]
    lines = ["|  | " + " | ".join(measured) + " |", "| --- |" + " --- |" * len(measured)]
    for name, value in rows:
        lines.append(f"| {name} | " + " | ".join(map(value, measured.values())) + " |")
    return "\n".join(lines)


def _spans(cells: Sequence[Cell], step: int) -> list[float]:
    """Return how long a step of the second run took."""
    times = [[0.0, *cell.runs[1]] for cell in cells]
    return [one[step + 1] - one[step] for one in times]


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} s"


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def main() -> int:
    """Measure, and print the table; return 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="how often to measure (default: 3)")
    parser.add_argument("--nodes", type=int, default=20, help="simulated SuperNodes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each run")
    parser.add_argument("--target", action="append", choices=list(SERVERS), help="default: all")
    options = parser.parse_args()
    kinds = [SERVERS[key] for key in options.target or SERVERS]
    measured: dict[str, list[Cell]] = {kind.name: [] for kind in kinds}
    # The servers take turns, so that a busy moment does not slow only one of them.
    for _ in range(options.repeat):
        for kind in kinds:
            load = os.getloadavg()[0]
            try:
                cell = measure(kind, options.nodes, options.rounds)
            except (ChildFailed, OSError) as exc:
                print(f"{kind.name}: {exc}", file=sys.stderr)
                return 1
            measured[kind.name].append(cell)
            print(json.dumps({"server": kind.name, "load": load, **vars(cell)}), flush=True)
    print(table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
