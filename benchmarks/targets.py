"""The servers under test: each is a context manager that starts the server and ends it."""

from __future__ import annotations

import json
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from benchmarks.control import Control
from benchmarks.fleet import Refused
from benchmarks.flower import wire_of
from benchmarks.processes import Child, ChildFailed, cpu_seconds, executable
from harness.certificates import create_server_certificates
from harness.environment import accepts_connections
from harness.flower import Addresses, Flower

_START_SECONDS = 90.0


class Target(ABC):
    """A server under test, started afresh for each measurement in a directory of its own."""

    key: str
    """Its name on the command line."""

    name: str
    """Its column in the table."""

    def __init__(self, directory: Path, flower: Flower, *, tls: bool = False) -> None:
        self.directory = directory
        self.flower = flower
        """The flwr of the clients and of the stock server."""
        self.wire = wire_of(flower.version)
        """The wire of clients and server."""
        self.addresses = Addresses.free()
        self.runtime = flower.runtime_address(self.addresses)
        self.fleet = flower.fleet_address(self.addresses)
        self.certificates = create_server_certificates(directory) if tls else None
        """Certificates for TLS; None without TLS."""

    @property
    def certificate(self) -> str | None:
        """The certificate that clients trust; None without TLS."""
        return str(self.certificates.ca_certificate) if self.certificates else None

    def control(self) -> Control:
        """Return a client of the Control API."""
        address = self.flower.control_address(self.addresses)
        return Control(self.wire, str(self.flower.version), address, self.certificate)

    def tls_options(self) -> list[str]:
        """Return the options for TLS, which flower-nats and ``flower-superlink`` share."""
        if self.certificates is None:
            return ["--insecure"]
        return [
            *("--ssl-certfile", str(self.certificates.certificate)),
            *("--ssl-keyfile", str(self.certificates.key)),
            *("--ssl-ca-certfile", str(self.certificates.ca_certificate)),
        ]

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line that runs the server in the foreground."""

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the server."""
        return {"FLWR_HOME": str(self.directory)}

    def __enter__(self) -> Self:
        log = self.directory / "server.log"
        self.child = Child.start(self.command(), log, env=self.environment())
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
        while not (self._serves() and self.announced()):
            self.child.check()
            if time.monotonic() > deadline:
                raise ChildFailed(f"it is not ready:\n{self.child.tail()}")
            time.sleep(0.1)

    def _serves(self) -> bool:
        apis = {self.runtime, self.fleet, self.flower.control_address(self.addresses)}
        try:
            return all(map(accepts_connections, apis)) and self.control().online_nodes() == 0
        except (OSError, Refused):
            return False

    def announced(self) -> bool:
        """Return whether the server has printed that it serves; True if it prints no such line."""
        return True

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU seconds of all its processes so far, by part."""
        return {part: cpu_seconds(members) for part, members in self.processes().items()}

    @abstractmethod
    def durability(self) -> str:
        """Return what an acknowledged message survives; a server that knows is asked."""

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return its live processes by part: gateway, superlink, nats, postgres, other."""
        parts: dict[str, list[psutil.Process]] = {}
        known: dict[int, str] = {}
        for process in self.child.tree():
            with suppress(psutil.Error):
                # A PostgreSQL backend has another name than the server that forked it.
                part = part_of(process.cmdline()) or known.get(process.ppid(), "other")
                known[process.pid] = part
                parts.setdefault(part, []).append(process)
        return parts


_PARTS = {
    "nats-server": "nats",
    "postgres": "postgres",
    "gateway": "gateway",
    "console": "console",
    "superlink": "superlink",
    "flower-superlink": "superlink",
}


def part_of(command: list[str]) -> str | None:
    """Return the part of a server that a command line runs; None if it names none."""
    # Program, interpreter and subcommand come first; paths of any name follow.
    words = [Path(word).name for word in command[:6]]
    return next((_PARTS[word] for word in words if word in _PARTS), None)


class StockInMemory(Target):
    """``flower-superlink`` of the clients' version with its default, in-memory state."""

    key = "memory"
    name = "stock, in memory"

    def environment(self) -> dict[str, str]:
        return self.flower.environment.variables(self.directory)

    def command(self) -> list[str]:
        isolation = ["--isolation", "process"]
        return [*self.flower.superlink(self.addresses), *isolation, *self.tls_options()]

    def durability(self) -> str:
        return "none, all state is in the process"


class StockSqlite(StockInMemory):
    """Stock with its state in a SQLite file."""

    key = "sqlite"
    name = "stock, SQLite"

    def command(self) -> list[str]:
        return [*super().command(), "--database", str(self.directory / "state.db")]

    def durability(self) -> str:
        # `supercore/sql_mixin.py` and `supercore/constant.py` of flwr.
        return (
            "SQLite file, journal_mode WAL, synchronous NORMAL (as flwr sets them): a kill of the "
            "process, no power cut"
        )


class FlowerNats(Target):
    """``flower-nats up``: gateway, superlink, nats-server and PostgreSQL on this machine."""

    key = "flower-nats"
    name = "flower-nats"

    def command(self) -> list[str]:
        return [
            *(executable("flower-nats"), "up", *self.tls_options(), "--isolation", "process"),
            *("--console-address", self.console_address()),
            *("--data-dir", str(self.directory / "data")),
            *("--serverappio-api-address", self.addresses.serverappio),
            *("--fleet-api-address", self.addresses.fleet),
            *("--control-api-address", self.addresses.control),
            *("--http-api-address", self.addresses.http),
        ]

    def console_address(self) -> str:
        """Return the address of its console; `none`: no console."""
        return "none"

    def announced(self) -> bool:
        return "flower-nats is ready" in self.child.log.read_text()

    def durability(self) -> str:
        program = executable("flower-nats")
        options = ["--data-dir", str(self.directory / "data"), "--format", "json"]
        # The command ends with 1: there is no SuperExec until a real run needs one.
        status = subprocess.run(
            [program, "status", *options], capture_output=True, check=False, text=True
        )
        settings = json.loads(status.stdout)["durability"]
        broker, database = settings["broker"], settings["database"]
        return (
            f"JetStream, {broker['replicas']} replica, synced: {broker['sync']}; PostgreSQL, "
            f"fsync {database['fsync']}, synchronous_commit {database['synchronous_commit']}"
        )


TARGETS: tuple[type[Target], ...] = (StockInMemory, StockSqlite, FlowerNats)
