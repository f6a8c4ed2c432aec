"""The server for the clients: flower-nats, or the `flower-superlink` of a version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.children import PATIENCE, Child, wait_until
from harness.environment import accepts_connections
from harness.flower import Addresses, Flower


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    process: Child
    addresses: Addresses
    folder: Path
    """The folder of the server's logs."""


@contextmanager
def flower_nats(folder: Path) -> Iterator[Server]:
    """Run `flower-nats up` in a folder, without a SuperExec."""
    addresses = Addresses.free()
    command = [
        *("flower-nats", "up", "--data-dir", str(folder / "data"), "--isolation", "process"),
        *("--serverappio-api-address", addresses.serverappio),
        *("--fleet-api-address", addresses.fleet),
        *("--control-api-address", addresses.control),
        *("--http-api-address", addresses.http),
    ]
    with _running(command, folder, {}) as process:
        process.wait_for_output("is ready", PATIENCE)
        yield Server(process, addresses, folder)


@contextmanager
def stock(flower: Flower, folder: Path) -> Iterator[Server]:
    """Run the `flower-superlink` of a version, which keeps everything in memory."""
    addresses = Addresses.free()
    command = [*flower.superlink(addresses), "--insecure", "--isolation", "process"]
    variables = flower.environment.variables(folder / "server-home")
    with _running(command, folder, variables) as process:

        def serves() -> bool:
            assert process.exit_code is None, f"the server ended:\n{process.output()}"
            return all(map(accepts_connections, flower.addresses_of(addresses)))

        wait_until(serves, PATIENCE, "the stock server to serve")
        yield Server(process, addresses, folder)


@contextmanager
def _running(command: list[str], folder: Path, variables: dict[str, str]) -> Iterator[Child]:
    folder.mkdir(parents=True, exist_ok=True)
    process = Child(command, log_file=folder / "server.log", environment=variables)
    try:
        yield process
    finally:
        process.terminate()
