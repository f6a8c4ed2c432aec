"""The kinds of lines in the table, and how one cell of a line is measured."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks import realrun
from benchmarks.logreader import LogReader
from benchmarks.processes import Memory, PeakMemory, busy_seconds, memory
from benchmarks.targets import Target
from benchmarks.worker import TooSlow, Worker

_JOIN_SECONDS = 300.0
_LOG_SECONDS = 300.0
_RECONNECT_SECONDS = 270.0
"""Time for nodes to join and to reconnect; five minutes with the server's start and end."""
_EDGE_PARTS = ("gateway", "superlink")


@dataclass(frozen=True)
class Goal:
    """A promise: flower-nats needs at most ``factor`` times as much as the stock target ``than``.

    ``measure`` is an attribute of Cell, ``seconds`` or ``cpu``.
    """

    factor: float
    than: str
    measure: str = "seconds"


@dataclass(frozen=True)
class Ceiling:
    """A promise: the ``measure`` of flower-nats is at most ``limit``, whatever stock needs."""

    limit: float
    measure: str = "cpu"


@dataclass(frozen=True)
class Growth:
    """A promise: flower-nats needs at most ``factor`` times its seconds for ``line``."""

    factor: float
    line: str


@dataclass
class Cell:
    """The figures of one target in one scenario; lists have an entry per repeat, in seconds."""

    times: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    """From the push of each log line until a reader has it, in seconds."""

    server_cpu: list[float] = field(default_factory=list)
    """CPU of every process of the server."""

    part_cpu: dict[str, list[float]] = field(default_factory=dict)
    """The same, by part of the server."""

    lost: list[str] = field(default_factory=list)
    """Why the server gave up on a node, once per reply it lost."""

    nodes_cpu: list[float] = field(default_factory=list)
    """CPU of the simulated nodes, which share the cores with the server."""

    app_cpu: list[float] = field(default_factory=list)
    """CPU of the ServerApp's process, which shares these cores, too."""

    others_cpu: list[float] = field(default_factory=list)
    """CPU of all other processes of the machine, which should be idle."""

    memory: dict[str, Memory] = field(default_factory=dict)
    """Highest memory by part of the server."""

    tally: dict[str, Any] = field(default_factory=dict)
    """The counts of the simulated nodes."""

    turned_away: dict[str, int] = field(default_factory=dict)
    """Calls that were turned away, to be retried, by method and answer."""

    dead: list[str] = field(default_factory=list)
    """Errors that would have ended a stock node, one for each node that got one."""

    notes: str = ""
    """Further notes on the cell."""

    durability: str = ""
    """The failures that an acknowledged message survives on this server."""

    unfinished: float | None = None
    """Seconds after which an exchange was given up, or gave itself up."""

    why: str = ""
    """How far the exchange had come."""

    load: float = 0.0
    """The machine's load average before the measurement."""

    failure: str = ""

    def add_cpu(self, before: Mapping[str, float], after: Mapping[str, float], per: float) -> None:
        """Add the server's CPU between two readings of its clocks, per ``per`` seconds."""
        spent = {part: (after[part] - before.get(part, 0.0)) / per for part in after}
        self.server_cpu.append(sum(spent.values()))
        for part, seconds in spent.items():
            self.part_cpu.setdefault(part, []).append(seconds)

    @property
    def seconds(self) -> float:
        """Median duration of an exchange or a run; if it was given up, the time until then."""
        return self.unfinished or statistics.median(self.times)

    @property
    def cpu(self) -> float:
        """Median CPU of all server processes during an exchange, a run or the idle time."""
        return statistics.median(self.server_cpu)

    @property
    def edge_memory(self) -> Memory:
        """Memory of gateway and superlink together; for stock, of the whole server."""
        return _sum(self.memory.get(part, Memory()) for part in _EDGE_PARTS)

    @property
    def total_memory(self) -> Memory:
        """Memory of all processes of the server."""
        return _sum(self.memory.values())


def _sum(memories: Iterable[Memory]) -> Memory:
    rss, pss = 0, 0
    for item in memories:
        rss, pss = rss + item.rss, pss + item.pss
    return Memory(rss, pss)


@dataclass(frozen=True)
class Scenario(ABC):
    """A line of the table."""

    name: str
    title: str
    goals: tuple[Goal | Ceiling | Growth, ...]
    skip: tuple[str, ...] = ()
    """Targets that are not measured on this line."""

    edge_memory_limit: int | None = None
    """Bytes that gateway and superlink may hold together during the line."""

    tls: bool = False

    @abstractmethod
    def measure(self, target: Target, cell: Cell) -> None:
        """Fill ``cell`` with what ``target``, already running, does."""


@dataclass(frozen=True)
class Exchange(Scenario):
    """A model of ``size`` bytes goes to each of ``nodes``, and each sends one of this size back.

    The exchange is repeated ``repeats`` times, as far as ``budget`` seconds are likely to suffice.
    """

    nodes: int = 10
    size: int = 1000
    repeats: int = 1
    budget: float = 60.0
    silence: float = 0.0
    """Seconds without an instruction before each exchange."""

    patience: float = 300.0
    """Seconds after which an exchange is given up."""

    def measure(self, target: Target, cell: Cell) -> None:
        with (
            fleet_of(target, self.nodes, self.size) as fleet,
            server_app_of(target) as (server_app, _),
        ):
            # A stock server that all nodes poll may be too busy to start a task before it expires.
            server_app.ask("start", _JOIN_SECONDS)
            nodes = fleet.ask("join", _JOIN_SECONDS)["nodes"]
            for _ in self._repeats(cell):
                fleet.ask("prepare", _JOIN_SECONDS)
                time.sleep(self.silence)
                self._exchange(target, cell, fleet, server_app, nodes)
            cell.tally = fleet.ask("tally", _JOIN_SECONDS)

    def _repeats(self, cell: Cell) -> Iterable[int]:
        start = time.monotonic()
        for index in range(self.repeats):
            took = time.monotonic() - start
            if cell.unfinished or (cell.times and took + cell.seconds > self.budget):
                return
            yield index

    def _exchange(
        self, target: Target, cell: Cell, fleet: Worker, server_app: Worker, nodes: list[int]
    ) -> None:
        server, clients = target.cpu_seconds(), (fleet.cpu_seconds(), server_app.cpu_seconds())
        busy = busy_seconds()
        with _sampling(target, cell, self.edge_memory_limit is not None):
            answer = self._ask(server_app, nodes)
        if "seconds" in answer:
            cell.times.append(answer["seconds"])
            cell.lost += answer["lost"]
        else:
            cell.unfinished, cell.why = answer["unfinished"], answer["why"]
        busy = busy_seconds() - busy
        cell.add_cpu(server, target.cpu_seconds(), per=1)
        cell.nodes_cpu.append(fleet.cpu_seconds() - clients[0])
        cell.app_cpu.append(server_app.cpu_seconds() - clients[1])
        ours = cell.server_cpu[-1] + cell.nodes_cpu[-1] + cell.app_cpu[-1]
        cell.others_cpu.append(max(busy - ours, 0.0))

    def _ask(self, server_app: Worker, nodes: list[int]) -> dict[str, Any]:
        try:
            return server_app.ask(
                "exchange", self.patience + 5, nodes=nodes, size=self.size, timeout=self.patience
            )
        except TooSlow:
            return {"unfinished": self.patience, "why": "no end of it"}


@contextmanager
def _sampling(target: Target, cell: Cell, wanted: bool) -> Iterator[None]:
    """Keep the highest memory of gateway and superlink inside the context in ``cell``."""
    if not wanted:
        yield
        return
    parts = target.processes()
    with PeakMemory({part: parts[part] for part in _EDGE_PARTS if part in parts}) as sampler:
        yield
    for part, peak in sampler.peaks.items():
        known = cell.memory.get(part, Memory())
        cell.memory[part] = Memory(max(known.rss, peak.rss), max(known.pss, peak.pss))


@dataclass(frozen=True)
class Idle(Scenario):
    """``nodes`` that have nothing to do, watched for ``watched`` seconds; CPU in cores.

    The watched time holds whole cycles of polls and of heartbeats.
    """

    nodes: int = 1000
    watched: float = 60.0

    def measure(self, target: Target, cell: Cell) -> None:
        with fleet_of(target, self.nodes, size=0) as fleet:
            fleet.ask("join", _JOIN_SECONDS)
            server, nodes = target.cpu_seconds(), fleet.cpu_seconds()
            start = time.monotonic()
            time.sleep(self.watched)
            watched = time.monotonic() - start
            cell.add_cpu(server, target.cpu_seconds(), per=watched)
            cell.nodes_cpu.append((fleet.cpu_seconds() - nodes) / watched)
            cell.memory = {part: memory(members) for part, members in target.processes().items()}
            cell.tally = fleet.ask("tally", _JOIN_SECONDS)


@dataclass(frozen=True)
class Reconnect(Scenario):
    """``nodes`` online nodes lose their connections at one moment and come back within a second.

    The time ends when the last node is online again, or after ``patience`` seconds.
    """

    nodes: int = 5000
    patience: float = 90.0

    def measure(self, target: Target, cell: Cell) -> None:
        start = time.monotonic()
        with fleet_of(target, self.nodes, size=0, light=True) as fleet:
            try:
                self._measure(target, cell, fleet, start + _RECONNECT_SECONDS)
            except TooSlow as exc:
                cell.unfinished = time.monotonic() - start
                cell.why = str(exc).partition("\n")[0]

    def _measure(self, target: Target, cell: Cell, fleet: Worker, end: float) -> None:
        def ask(do: str, **arguments: object) -> dict[str, Any]:
            return fleet.ask(do, max(end - time.monotonic(), 0.0), **arguments)

        ask("join")
        ask("prepare_return")
        server, nodes, busy = target.cpu_seconds(), fleet.cpu_seconds(), busy_seconds()
        with _sampling(target, cell, wanted=True):
            answer = ask("reconnect", within=self.patience)
        busy = busy_seconds() - busy
        cell.add_cpu(server, target.cpu_seconds(), per=1)
        cell.nodes_cpu.append(fleet.cpu_seconds() - nodes)
        cell.others_cpu.append(max(busy - cell.server_cpu[-1] - cell.nodes_cpu[-1], 0.0))
        self.take(answer, cell)
        cell.tally = ask("tally")

    def take(self, answer: Mapping[str, Any], cell: Cell) -> None:
        """Put the nodes' figures of their return into ``cell``."""
        online: list[float] = answer["online"]
        cell.turned_away = answer["turned_away"]
        cell.dead = answer["dead"]
        cell.notes = (
            f"{len(online):,} of {self.nodes:,} online; connections broken within "
            f"{answer['cut']:.2f} s; {answer['late_heartbeats']} heartbeats not answered in 5 s"
        )
        if online:
            cell.notes += f"; half online after {statistics.median(online):.2f} s"
        if len(online) == self.nodes:
            cell.times.append(online[-1])
        else:
            cell.unfinished = self.patience
            cell.why = f"{self.nodes - len(online):,} of {self.nodes:,} nodes not online"


@dataclass(frozen=True)
class RealRun(Scenario):
    """A run of three rounds by stock SuperNodes, SuperExec and ServerApp, until it has finished."""

    def measure(self, target: Target, cell: Cell) -> None:
        with realrun.clients(target) as children:
            before = target.cpu_seconds()
            cell.times.append(realrun.run(target, children))
            cell.add_cpu(before, target.cpu_seconds(), per=1)


@dataclass(frozen=True)
class LogLines(Scenario):
    """A reader follows ``lines`` log lines; each is pushed ``interval`` seconds after the last."""

    lines: int = 60
    interval: float = 0.3

    def measure(self, target: Target, cell: Cell) -> None:
        with server_app_of(target) as (server_app, run_id):
            server_app.ask("start", _JOIN_SECONDS)
            reader = LogReader(target.control().logs(run_id))
            pushed = server_app.ask("log", _LOG_SECONDS, lines=self.lines, interval=self.interval)[
                "pushed"
            ]
            cell.delays = reader.delays(pushed)


def fleet_of(target: Target, nodes: int, size: int, light: bool = False) -> Worker:
    """Return simulated nodes that call a target."""
    arguments = {
        "wire": target.wire,
        "version": str(target.flower.version),
        "address": target.fleet,
        "certificate": target.certificate,
        "nodes": nodes,
        "reply_size": size,
        "light": light,
    }
    return Worker("loadgen", arguments, target.directory / "loadgen.log")


@contextmanager
def server_app_of(target: Target) -> Iterator[tuple[Worker, int]]:
    """Run a ServerApp of the clients' version; yield it and the id of its run."""
    environment, run_id = target.flower.environment, target.control().start_run()
    arguments = {
        "wire": target.wire,
        "address": target.runtime,
        "certificate": target.certificate,
        "run_id": run_id,
    }
    with Worker(
        "stock.serverapp",
        arguments,
        target.directory / "serverapp.log",
        python=environment.program("python"),
        env=environment.variables(target.directory),
    ) as worker:
        yield worker, run_id
