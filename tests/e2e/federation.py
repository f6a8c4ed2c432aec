"""Stock Flower clients, as processes, around one server under test."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from harness.certificates import NodeKey
from harness.children import PATIENCE, Child, wait_until
from harness.environment import clean_environment
from harness.flower import GRPC, Flower, runtime_wire
from harness.flower_environments import LAST_OVER_GRPC, environment, installed
from tests.e2e.servers import STOCK, ServerUnderTest
from tests.e2e.statuses import Statuses

APPS = Path(__file__).parent / "apps"

OVER_HTTP = str(installed().version)
"""The newest flwr, which calls over HTTP."""

OVER_GRPC = OVER_HTTP if STOCK else LAST_OVER_GRPC
"""A flwr with all clients over gRPC; a stock server takes only its own version."""

BOTH = list(dict.fromkeys([OVER_HTTP, OVER_GRPC]))
"""A version for each wire, for tests of both wires."""

_NODE_ID = re.compile(r"SuperNode ID: (\d+)\n")
_RUN_ID = re.compile(r"Successfully started run (\d+)")


class SuperNode:
    """A stock `flower-supernode` that the server has let in."""

    def __init__(self, name: str, process: Child) -> None:
        self.name = name
        self.process = process
        self.node_id = int(process.wait_for_match(_NODE_ID)[1])

    def took_part_in(self, run_id: int) -> bool:
        """Return whether a message of the run has reached this SuperNode."""
        return f"[RUN {run_id}" in self.process.output()


class Federation:
    """Stock clients of users and operators on one server, each with its own home directory.

    The clients have the newest flwr, or the version given to `of`.
    """

    def __init__(
        self, server: ServerUnderTest, folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        self.server = server
        self.folder = folder
        self._variables = variables or {}
        self._children: list[Child] = []
        self._use(Flower(installed()))

    def of(self, version: str) -> Federation:
        """Return the same federation, for clients of another version."""
        other = copy(self)
        if version != OVER_HTTP:
            other._use(Flower(environment(version)))
        return other

    def cli(
        self, *arguments: str | Path, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run `flwr` to its end; stdout and stderr are kept apart."""
        return self._finish([self._program("flwr"), *map(str, arguments)], timeout)

    def submit_fab(self, fab: bytes) -> subprocess.CompletedProcess[str]:
        """Run `flwr run` with these bytes as the app's FAB."""
        fab_file = self.folder / "submitted.fab"
        fab_file.write_bytes(fab)
        script = Path(__file__).parent / "submit_fab.py"
        app = APPS / "nothing"
        command = [self._program("python"), str(script), str(fab_file), "run", str(app)]
        return self._finish(command, PATIENCE)

    def refusal(self, *arguments: str | Path) -> str:
        """Run `flwr`, which must fail with an error message; return the message."""
        return refusal_in(self.cli(*arguments))

    def cli_json(self, *arguments: str | Path) -> dict[str, Any]:
        """Run `flwr … --format json` and return what it printed."""
        done = self.cli(*arguments, "--format", "json")
        assert done.stdout, f"flwr {arguments} printed nothing; stderr: {done.stderr}"
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    def start_cli(self, name: str, *arguments: str | Path) -> Child:
        """Start `flwr` and let it run."""
        command = [self._program("flwr"), *map(str, arguments)]
        return self._start(name, command, self._cli_variables)

    def run_app(self, app: str, run_config: str = "") -> int:
        """Submit one of the test apps and return its run id."""
        return run_id_in(self._run(app, run_config))

    def run_to_end(self, app: str, run_config: str = "") -> tuple[int, str]:
        """Run one of the test apps with `flwr run --stream`; return its run id and its log."""
        output = self._run(app, run_config, "--stream")
        return run_id_in(output), output

    def status_of(self, run_id: int) -> str:
        """Return a run's status as `flwr list` shows it, such as `finished:completed`."""
        status: str = self.details_of(run_id)["status"]
        return status

    def details_of(self, run_id: int) -> dict[str, Any]:
        """Return the details of a run from `flwr list --run-id`."""
        (run,) = self.cli_json("list", "--run-id", str(run_id))["runs"]
        assert run["run-id"] == str(run_id)
        details: dict[str, Any] = run
        return details

    def wait_for_status(self, run_id: int, status: str, timeout: float = PATIENCE) -> None:
        """Wait until a run has a status."""
        statuses = Statuses(self.server)
        try:
            wait_until(
                lambda: statuses.of(run_id) == status,
                timeout,
                f"run {run_id} to be {status}",
            )
        finally:
            statuses.close()

    def log_of(self, run_id: int) -> str:
        """Return the whole log of a finished run."""
        done = self.cli("log", str(run_id), "--stream")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nodes(self) -> dict[int, str]:
        """Return the status of every node that `flwr supernode list` shows, by node id."""
        listed = self.cli_json("supernode", "list")["nodes"]
        return {int(node["node-id"]): node["status"] for node in listed}

    def start_supernodes(self, **versions: str) -> list[SuperNode]:
        """Start SuperNodes with their name in the node config, and wait until all are let in."""
        processes = {
            name: self.of(version).start_supernode_process(name)
            for name, version in versions.items()
        }
        return [SuperNode(name, process) for name, process in processes.items()]

    def start_supernode_process(
        self,
        name: str,
        key: NodeKey | None = None,
        trusted_entities: Path | None = None,
        node_config: str = "",
    ) -> Child:
        """Start a SuperNode, with a registered key or a new key, and do not wait for it.

        `trusted_entities` is its file of trusted signers: it runs only their apps. `node_config` is
        added to its name in its node config.
        """
        superlink = self._flower.fleet_address(self.server.addresses)
        private_key = key.private if key else None
        command = self._flower.supernode(
            superlink, f'name="{name}" {node_config}'.strip(), self._ca_certificate, private_key
        )
        if trusted_entities:
            command += ["--trusted-entities", str(trusted_entities)]
        return self._start_with_home(f"supernode-{name}", command)

    def start_superexec(self, name: str, secret: Path | None = None) -> Child:
        """Start a SuperExec for ServerApps, like an operator in `process` isolation."""
        # The server has no certificate for the gRPC port of ServerApps: that port is plain.
        over_grpc = runtime_wire(self._flower.version) == GRPC
        ca_certificate = None if over_grpc else self._ca_certificate
        address = self._flower.runtime_address(self.server.addresses)
        command = self._flower.superexec(address, ca_certificate, secret)
        return self._start_with_home(name, command)

    def close(self) -> None:
        """End all clients."""
        for child in self._children:
            child.ask_to_end()
        for child in self._children:
            child.terminate()

    def _run(self, app: str, run_config: str, *flags: str) -> str:
        overrides = ["--run-config", run_config] if run_config else []
        done = self.cli("run", APPS / app, *flags, *overrides)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _use(self, flower: Flower) -> None:
        self._flower = flower
        home = self.folder / f"cli-home-{flower.version}"
        flower.write_config(home, self.server.addresses, self._ca_certificate)
        self._cli_variables = {**flower.environment.variables(home), **self._variables}

    @property
    def _ca_certificate(self) -> Path | None:
        certificates = self.server.options.certificates
        return certificates.ca_certificate if certificates else None

    def _program(self, name: str) -> str:
        return self._flower.environment.program(name)

    def _finish(self, command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=clean_environment(self._cli_variables),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def _start_with_home(self, name: str, command: Sequence[str]) -> Child:
        own = self._flower.environment.variables(self.folder / name)
        return self._start(name, command, {**own, **self._variables})

    def _start(self, name: str, command: Sequence[str], variables: Mapping[str, str]) -> Child:
        child = Child(command, log_file=self.folder / f"{name}.log", environment=variables)
        self._children.append(child)
        return child


def refusal_in(done: subprocess.CompletedProcess[str]) -> str:
    """Return an error message without the box that the stock CLI draws around it."""
    assert done.returncode == 1, f"{done.args} was not refused:\n{done.stdout}"
    assert "Traceback" not in done.stdout + done.stderr
    return " ".join(line.strip("│ ") for line in done.stderr.splitlines() if line[:1] == "│")


def run_id_in(output: str) -> int:
    """Return the id of the started run from the output of `flwr run`."""
    found = _RUN_ID.search(output)
    assert found is not None, f"no run id in: {output}"
    return int(found[1])
