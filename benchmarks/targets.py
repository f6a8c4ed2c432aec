"""The servers under test, each a context manager that starts it and leaves nothing running."""

from __future__ import annotations

import json
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import psutil
from flwr.supercore.constant import SQLITE_PRAGMAS

from benchmarks.processes import Child, ChildFailed, cpu_seconds, executable, free_address

_START_SECONDS = 90.0


@dataclass(frozen=True)
class Addresses:
    """Where a target listens, each ``host:port`` on loopback."""

    appio: str
    fleet: str
    control: str

    @classmethod
    def free(cls) -> Addresses:
        return cls(free_address(), free_address(), free_address())

    def options(self) -> list[str]:
        """The options of ``flower-superlink``, which flower-nats shares."""
        return [
            *("--serverappio-api-address", self.appio),
            *("--fleet-api-address", self.fleet),
            *("--control-api-address", self.control),
        ]


class Target(ABC):
    """A server under test, started afresh for each measurement in a directory of its own."""

    key: str
    """What the command line calls it."""

    name: str
    """Its column in the table."""

    idle_seconds: float
    """How long idle nodes are watched: a whole cycle of their polls, and of their heartbeats."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses = Addresses.free()

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that runs it in the foreground."""

    def __enter__(self) -> Self:
        log = self.directory / "server.log"
        self.child = Child.start(self.command(), log, env={"FLWR_HOME": str(self.directory)})
        try:
            self._wait_until_ready()
        except BaseException:
            self.child.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        for address in (self.addresses.appio, self.addresses.fleet, self.addresses.control):
            with grpc.insecure_channel(address) as channel:
                serving = grpc.channel_ready_future(channel)
                while not (_done(serving) and self.announced()):
                    self.child.check()
                    if time.monotonic() > deadline:
                        raise ChildFailed(f"{address} is not ready:\n{self.child.tail()}")

    def announced(self) -> bool:
        """Whether it has said that it serves, if it says so at all."""
        return True

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of all its processes so far, in seconds, by what they are."""
        return {part: cpu_seconds(members) for part, members in self.processes().items()}

    @abstractmethod
    def durability(self) -> str:
        """What an acknowledged message survives, asked of the running server where it can tell."""

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Its live processes by what they are: gateway, superlink, nats, postgres, other."""
        parts: dict[str, list[psutil.Process]] = {}
        known: dict[int, str] = {}
        for process in self.child.tree():
            with suppress(psutil.Error):
                # A PostgreSQL backend goes by another name than the server that forked it.
                part = part_of(process.cmdline()) or known.get(process.ppid(), "other")
                known[process.pid] = part
                parts.setdefault(part, []).append(process)
        return parts


_PARTS = {
    "nats-server": "nats",
    "postgres": "postgres",
    "gateway": "gateway",
    "superlink": "superlink",
    "flower-superlink": "superlink",
}


def part_of(command: list[str]) -> str | None:
    """Which part of a server a command line runs; None if it does not say."""
    # Program, interpreter and subcommand come first; what follows holds paths of any name.
    words = [Path(word).name for word in command[:6]]
    return next((_PARTS[word] for word in words if word in _PARTS), None)


def _done(ready: grpc.Future[None]) -> bool:
    try:
        ready.result(timeout=0.2)
    except grpc.FutureTimeoutError:
        return False
    return True


class StockInMemory(Target):
    """``flower-superlink`` 1.33.0 with its default, in-memory state."""

    key = "memory"
    name = "stock, in memory"
    # A poll every 3 s, a heartbeat every 20.
    idle_seconds = 20.0

    def command(self) -> list[str]:
        program = executable("flower-superlink")
        return [program, "--insecure", "--isolation", "process", *self.addresses.options()]

    def durability(self) -> str:
        return "none, all state is in the process"


class StockSqlite(StockInMemory):
    """``flower-superlink`` 1.33.0 with its state in a SQLite file."""

    key = "sqlite"
    name = "stock, SQLite"

    def command(self) -> list[str]:
        return [*super().command(), "--database", str(self.directory / "state.db")]

    def durability(self) -> str:
        settings = dict(SQLITE_PRAGMAS)
        return (
            f"SQLite file, journal_mode {settings['journal_mode']}, synchronous "
            f"{settings['synchronous']} (as flwr sets them): a kill of the process, no power cut"
        )


class FlowerNats(Target):
    """``flower-nats up``: gateway, superlink, nats-server and PostgreSQL on this machine."""

    key = "flower-nats"
    name = "flower-nats"
    # A poll is held for 50 s and followed by the node's sleep of 3.
    idle_seconds = 54.0

    def command(self) -> list[str]:
        return [
            *(executable("flower-nats"), "up", "--insecure", "--isolation", "process"),
            *("--data-dir", str(self.directory / "data")),
            *self.addresses.options(),
        ]

    def announced(self) -> bool:
        return "flower-nats is ready" in self.child.log.read_text()

    def durability(self) -> str:
        program = executable("flower-nats")
        options = ["--data-dir", str(self.directory / "data"), "--format", "json"]
        status = subprocess.run(
            [program, "status", *options], check=True, capture_output=True, text=True
        )
        settings = json.loads(status.stdout)["durability"]
        broker, database = settings["broker"], settings["database"]
        return (
            f"JetStream, {broker['replicas']} replica, synced: {broker['sync']}; PostgreSQL, "
            f"fsync {database['fsync']}, synchronous_commit {database['synchronous_commit']}"
        )


TARGETS: tuple[type[Target], ...] = (StockInMemory, StockSqlite, FlowerNats)
