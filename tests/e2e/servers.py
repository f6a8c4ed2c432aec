"""The server under test: `flower-nats up`, or stock `flower-superlink` as a reference.

With FLOWER_NATS_E2E_STOCK=1 the same tests run against the stock SuperLink, which takes only
clients of its own version. A test that passes there and fails here shows a difference that users of
stock clients would notice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.certificates import ServerCertificates
from harness.children import Child, wait_until
from harness.environment import accepts_connections
from harness.flower import Addresses, Flower
from harness.flower_environments import installed
from harness.former_releases import Release

STOCK = os.environ.get("FLOWER_NATS_E2E_STOCK") == "1"

_STOCK_SERVER = Flower(installed())

# The first start creates the database, on a machine that may be busy.
START_TIMEOUT = 90.0


@dataclass(frozen=True)
class ServerOptions:
    """The options of a server."""

    certificates: ServerCertificates | None = None
    """TLS for the Fleet and the Control API; None is `--insecure`."""

    supernode_auth: bool = False
    """Let in only SuperNodes with a registered key."""

    isolation: str = "subprocess"
    """`subprocess`: the server starts a SuperExec itself; `process`: the test does."""

    replicas: int = 1
    """The number of superlinks, and of gateways; stock has one SuperLink."""

    superexec_secret: Path | None = None
    """File with the secret that SuperExecs share with the server, in `process` isolation."""

    console: str = "none"
    """The console's address; stock has no console."""

    more: tuple[str, ...] = ()
    """Further flags of `flower-nats up`."""


class ServerUnderTest:
    """A server with its own addresses and data directory, which outlive its process."""

    def __init__(self, folder: Path, options: ServerOptions) -> None:
        self.folder = folder
        self.options = options
        self.addresses = Addresses.free()
        self.release: Release | None = None
        """A former release to start in place of this one."""
        self._process: Child | None = None
        self._starts = 0

    @property
    def process(self) -> Child:
        """The running process."""
        assert self._process is not None, "the server was not started"
        return self._process

    def start(self) -> None:
        """Start the server, and wait until it serves."""
        self._starts += 1
        self._process = Child(
            _stock_command(self) if STOCK else _flower_nats_command(self),
            log_file=self.folder / f"server-{self._starts}.log",
            environment=_variables(self, self.folder / "flwr-home"),
        )
        if STOCK:
            wait_until(self._accepts_connections, START_TIMEOUT, "the stock server to serve")
        else:
            self._process.wait_for_output("is ready", START_TIMEOUT)

    def stop(self) -> None:
        """End the server like an operator."""
        if self._process is not None:
            self._process.terminate()

    def _accepts_connections(self) -> bool:
        assert self.process.exit_code is None, f"the server ended:\n{self.process.output()}"
        return all(map(accepts_connections, _STOCK_SERVER.addresses_of(self.addresses)))


@contextmanager
def running_server(folder: Path, options: ServerOptions) -> Iterator[ServerUnderTest]:
    """Run a server during a `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ServerUnderTest(folder, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _variables(server: ServerUnderTest, home: Path) -> dict[str, str]:
    if server.release is not None:
        return server.release.environment().variables(home)
    return {"FLWR_HOME": str(home)}


def _flower_nats_command(server: ServerUnderTest) -> list[str]:
    addresses, program = server.addresses, "flower-nats"
    if server.release is not None:
        program = server.release.environment().program(program)
    return [
        *(program, "up", "--data-dir", str(server.folder / "data")),
        *("--replicas", str(server.options.replicas)),
        *("--serverappio-api-address", addresses.serverappio),
        *("--fleet-api-address", addresses.fleet),
        *("--control-api-address", addresses.control),
        *(() if _is(server, "0.1.0") else ("--http-api-address", addresses.http)),
        *(() if server.release else ("--console-address", server.options.console)),
        *_flags(server.options),
        *server.options.more,
    ]


def _is(server: ServerUnderTest, version: str) -> bool:
    return server.release is not None and server.release.version == version


def _stock_command(server: ServerUnderTest) -> list[str]:
    database = ["--database", str(server.folder / "state.db")]
    return [*_STOCK_SERVER.superlink(server.addresses), *database, *_flags(server.options)]


def _flags(options: ServerOptions) -> list[str]:
    # All dependencies of the apps are installed; no test uses a package registry.
    flags = ["--isolation", options.isolation, "--disable-runtime-dependency-installation"]
    if options.certificates is None:
        flags += ["--insecure"]
    else:
        flags += ["--ssl-ca-certfile", str(options.certificates.ca_certificate)]
        flags += ["--ssl-certfile", str(options.certificates.certificate)]
        flags += ["--ssl-keyfile", str(options.certificates.key)]
    if options.supernode_auth:
        flags += ["--enable-supernode-auth"]
    if options.superexec_secret is not None:
        flags += ["--superexec-auth-secret-file", str(options.superexec_secret)]
    return flags
