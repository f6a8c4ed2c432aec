"""The server under test: `flower-nats up`, or stock `flower-superlink` as a reference.

With FLOWER_NATS_E2E_STOCK=1 the same tests run against the stock SuperLink. What passes there and
fails here is a difference that a user of stock clients would notice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from tests.e2e.certificates import ServerCertificates
from tests.harness.children import Child, wait_until
from tests.harness.environment import accepts_connections, free_port

STOCK = os.environ.get("FLOWER_NATS_E2E_STOCK") == "1"

# The first start creates the database, on a machine that may be busy with other things.
START_TIMEOUT = 90.0


@dataclass(frozen=True)
class ServerOptions:
    """How to start a server."""

    certificates: ServerCertificates | None = None
    """Speak TLS on the Fleet and the Control API; None is `--insecure`."""

    supernode_auth: bool = False
    """Let in only SuperNodes whose key was registered."""

    isolation: str = "subprocess"
    """`subprocess`: the server starts a SuperExec itself; `process`: the test does."""

    replicas: int = 1
    """Members and gateways; stock has one."""

    superexec_secret: Path | None = None
    """File with the secret that SuperExecs share with the server, in `process` isolation."""


@dataclass(frozen=True)
class Addresses:
    """`host:port` of the three APIs."""

    serverappio: str
    fleet: str
    control: str


class ServerUnderTest:
    """A server on addresses and a data directory of its own, which outlive its process."""

    def __init__(self, folder: Path, options: ServerOptions) -> None:
        self.folder = folder
        self.options = options
        self.addresses = Addresses(*(f"127.0.0.1:{free_port()}" for _ in range(3)))
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
            environment={"FLWR_HOME": str(self.folder / "flwr-home")},
        )
        if STOCK:
            wait_until(self._accepts_connections, START_TIMEOUT, "the stock server to serve")
        else:
            self._process.wait_for_output("is ready", START_TIMEOUT)

    def stop(self) -> None:
        """End the server as an operator does."""
        if self._process is not None:
            self._process.terminate()

    def _accepts_connections(self) -> bool:
        assert self.process.exit_code is None, f"the server ended:\n{self.process.output()}"
        return all(map(accepts_connections, astuple(self.addresses)))


@contextmanager
def running_server(folder: Path, options: ServerOptions) -> Iterator[ServerUnderTest]:
    """Run a server for the time of a `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    server = ServerUnderTest(folder, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _flower_nats_command(server: ServerUnderTest) -> list[str]:
    replicas = ["--replicas", str(server.options.replicas)]
    data = ["--data-dir", str(server.folder / "data")]
    http = ["--http-api-address", f"127.0.0.1:{free_port()}"]
    return ["flower-nats", "up", *data, *replicas, *http, *_flags(server)]


def _stock_command(server: ServerUnderTest) -> list[str]:
    return ["flower-superlink", "--database", str(server.folder / "state.db"), *_flags(server)]


def _flags(server: ServerUnderTest) -> list[str]:
    options, addresses = server.options, server.addresses
    flags = [
        *("--serverappio-api-address", addresses.serverappio),
        *("--fleet-api-address", addresses.fleet),
        *("--control-api-address", addresses.control),
        *("--isolation", options.isolation),
        # The apps need nothing that is not installed; no test goes to a package registry.
        "--disable-runtime-dependency-installation",
    ]
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
