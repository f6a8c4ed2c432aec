"""`flower-nats local` for a user who has `flwr` and no server: with real simulations."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from harness.children import PATIENCE, Child, ended, wait_until
from harness.environment import accepts_connections, clean_environment, free_port
from harness.flower_environments import LAST_OVER_GRPC, environment, installed
from tests.e2e.federation import APPS, refusal_in, run_id_in

HAS_RAY = importlib.util.find_spec("ray") is not None
simulates = pytest.mark.skipif(
    not HAS_RAY, reason="ray is not installed: pip install '.[simulation]'"
)

OVER_GRPC_WITH_HTTP_RUNTIME = "1.36.0"
"""The last version in which `flwr` looks for its local SuperLink over gRPC."""


COMMAND_SECONDS = 150.0
"""Time limit of a command: `flower-nats local start` gives the runtime 130 seconds."""

RAN = "round 2: 10 answers, 9.0"
"""Each of ten nodes adds its number, from 0 to 9, in each of two rounds."""


class Person:
    """A user with their own FLWR_HOME and ports."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.home = folder / "flwr-home"
        self.data = self.home / "local-superlink" / "flower-nats"
        self._folder = folder
        self._variables = {
            "FLWR_HOME": str(self.home),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
            "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
            # All dependencies of the app are installed; no test uses a package registry.
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLOWER_NATS_LOCAL_MAX_CONCURRENT_SIMULATIONS": "1",
            **variables,
        }

    @property
    def port(self) -> int:
        """The port on which `flwr` looks for a local SuperLink over HTTP."""
        return int(self._variables["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"])

    def local(
        self, *arguments: str, through: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run `flower-nats local`; `through` is the command, if any, that starts it."""
        return self._finish([*through, installed().program("flower-nats"), "local", *arguments])

    def flwr(self, *arguments: str | Path, version: str = "") -> str:
        """Run `flwr` of some version, which must succeed; return its output."""
        done = self._flwr(arguments, version)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refusal(self, *arguments: str | Path, version: str = "") -> str:
        """Run `flwr` of some version, which must be refused; return the error message."""
        return refusal_in(self._flwr(arguments, version))

    def connect(self, **options: str) -> None:
        """Add local connections to the config of `flwr`: names, and the `options.*` of each."""
        with (self.home / "config.toml").open("a") as config:
            for name, lines in options.items():
                config.write(f'\n[superlink.{name}]\naddress = ":local:"\n{lines}\n')

    def run(self, pause: float = 0.0) -> int:
        """Submit a simulation of ten nodes; each node answers after `pause` seconds."""
        flags = ["--run-config", f"pause={pause}"]
        return run_id_in(self.flwr("run", APPS / "simulated", *flags))

    def runs(self) -> dict[int, Mapping[str, Any]]:
        """Return the runs that `flwr list` shows, by their ids."""
        listed = json.loads(self.flwr("list", "--format", "json"))["runs"]
        return {int(run["run-id"]): run for run in listed}

    def status(self, run_id: int) -> str:
        """Return the status of a run."""
        return str(self.runs()[run_id]["status"])

    def wait_for(self, run_id: int, status: str) -> None:
        """Wait until a run has a status."""
        wait_until(lambda: self.status(run_id) == status, PATIENCE, f"{run_id} {status}", every=0.5)

    def processes(self, pattern: str = "") -> list[psutil.Process]:
        """Return the processes of this home with a command that matches a pattern."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_ours = process.environ().get("FLWR_HOME") == str(self.home)
                if is_ours and re.search(pattern, " ".join(process.cmdline())):
                    found.append(process)
        return found

    def wait_for_ray(self) -> None:
        """Wait until a simulation has its Ray, with processes for the SuperNodes."""
        actors = "ClientAppActor|default_worker"
        wait_until(lambda: self.processes(actors), PATIENCE, "Ray", every=0.5)

    def assert_no_simulation_is_left(self) -> None:
        """Check that all processes of a simulation end soon."""
        wait_until(
            lambda: not self.processes("ray|flwr-simulation"),
            PATIENCE,
            "the end of the simulation and its Ray",
            every=0.2,
        )

    def owner(self) -> int:
        """Return the process id of the runtime."""
        return int((self.data / "up.lock").read_text().split()[0])

    def _flwr(
        self, arguments: Sequence[str | Path], version: str
    ) -> subprocess.CompletedProcess[str]:
        flower = environment(version) if version else installed()
        return self._finish(
            [flower.program("flwr"), *map(str, arguments)],
            {"PATH": flower.variables(self.home)["PATH"]},
        )

    def _finish(
        self, command: list[str], more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=clean_environment({**self._variables, **(more or {})}),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )


@pytest.fixture(scope="module")
def person(workspace: Path) -> Iterator[Person]:
    """A user who has started the runtime, and simulates ten nodes."""
    person = Person(workspace)
    started = person.local("start")
    assert started.returncode == 0, started.stderr
    configured = ["--num-supernodes", "10", "--client-resources-num-cpus", "1"]
    person.flwr("federation", "simulation-config", *configured)
    yield person
    person.local("stop")
    for process in person.processes():
        process.kill()


def test_a_runtime_that_runs_is_not_started_again(person: Person) -> None:
    owner = person.owner()

    again = person.local("start")

    assert again.returncode == 0, again.stderr
    assert f"(pid {owner})" in again.stdout
    assert person.owner() == owner
    status = person.local("status")
    assert status.returncode == 0
    assert "is healthy" in status.stdout
    assert "gateway-1" not in {process.name() for process in person.processes()}
    assert "superexec | " in person.local("logs", "superexec").stdout


def test_one_that_has_the_ports_is_named(person: Person, tmp_path: Path) -> None:
    other = Person(tmp_path, FLWR_LOCAL_SUPERLINK_HTTP_API_PORT=str(person.port))

    refused = other.local("start")

    assert refused.returncode == 1
    assert f"Port {person.port} is taken by" in refused.stderr
    assert f"(pid {person.owner()})" in refused.stderr
    assert "FLWR_LOCAL_CONTROL_API_PORT" in refused.stderr
    assert not other.processes()


@simulates
@pytest.mark.parametrize(
    "version",
    [
        "",
        pytest.param(OVER_GRPC_WITH_HTTP_RUNTIME, marks=pytest.mark.long),
        pytest.param(LAST_OVER_GRPC, marks=pytest.mark.long),
    ],
)
def test_a_simulation_of_ten_nodes_is_run_by_the_default_connection(
    person: Person, version: str
) -> None:
    output = person.flwr("run", APPS / "simulated", "--stream", version=version)

    run_id = run_id_in(output)
    assert RAN in output
    assert person.status(run_id) == "finished:completed"
    assert RAN in person.flwr("log", str(run_id), "--show", version=version)
    person.assert_no_simulation_is_left()


@simulates
@pytest.mark.long
def test_simulations_wait_for_each_other_and_one_that_is_stopped_is_gone(person: Person) -> None:
    first = person.run(pause=60)
    second = person.run()
    person.wait_for_ray()
    former = person.processes("ray|flwr-simulation")
    assert (person.status(first), person.status(second)) == ("running", "pending")

    person.flwr("stop", str(first))

    wait_until(lambda: ended(former), PATIENCE, "the end of the first and its Ray", every=0.2)
    person.wait_for(second, "finished:completed")
    person.assert_no_simulation_is_left()


@simulates
@pytest.mark.long
def test_a_simulation_that_is_killed_fails_with_the_reason(person: Person) -> None:
    run_id = person.run(pause=60)
    person.wait_for_ray()
    [simulation] = person.processes("/flwr-simulation")

    simulation.kill()

    person.assert_no_simulation_is_left()
    person.wait_for(run_id, "finished:failed")
    assert "ended without a message" in person.runs()[run_id]["status-details"]


@simulates
@pytest.mark.long
def test_a_superexec_that_is_killed_fails_its_simulation_with_the_reason(person: Person) -> None:
    run_id = person.run(pause=60)
    person.wait_for_ray()
    [superexec] = person.processes(r"python\S* \S*/flower-superexec")

    superexec.kill()

    person.wait_for(run_id, "finished:failed")
    assert "its SuperExec ended" in person.runs()[run_id]["status-details"]
    assert "10 nodes of flwr" in person.flwr("log", str(run_id), "--show")
    person.assert_no_simulation_is_left()
    person.wait_for(person.run(), "finished:completed")


@simulates
@pytest.mark.long
@pytest.mark.parametrize("version", ["", LAST_OVER_GRPC])
def test_options_of_a_connection_count_for_its_runs(person: Person, version: str) -> None:
    name = f"three-{version.replace('.', '-')}"
    resources = "options.backend.client-resources.num-cpus = 1"
    person.connect(
        **{
            name: f"options.num-supernodes = 3\n{resources}\noptions.verbose = true",
            f"{name}-zero": "options.num-supernodes = 0",
        }
    )
    app, nodes = APPS / "simulated", ["--run-config", "nodes=3"]

    output = person.flwr("run", app, name, *nodes, "--stream", version=version)
    refused = person.refusal("run", app, f"{name}-zero", *nodes, version=version)

    assert "round 2: 3 answers" in output
    assert "DEBUG" in output
    assert "num-supernodes must be at least 1" in refused


class RayCluster:
    """A Ray cluster that a user has started on this machine."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        # Ray's sockets have long names, and a socket's path may have at most 107 bytes.
        self._sockets = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        command = ["ray", "start", "--head", "--block", "--include-dashboard=false", "--num-cpus=2"]
        command += ["--node-ip-address=127.0.0.1", f"--port={self.address.rpartition(':')[2]}"]
        # Ray uses none of its default ports.
        ports = ["min-worker", "max-worker", "dashboard-agent-listen"]
        command += [f"--{name}-port=0" for name in ports]
        command += [f"--ray-client-server-port={free_port()}", "--disable-usage-stats"]
        command += [f"--temp-dir={self._sockets.name}"]
        self._process = Child(command, log_file=folder / "ray.log", environment={})

    def wait_until_ready(self) -> None:
        """Wait until simulations may connect."""
        self._process.wait_for_output("Ray runtime started")

    def players(self) -> list[psutil.Process]:
        """Return Ray's processes that stand for SuperNodes."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "ClientAppActor" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> None:
        """End the Ray cluster."""
        self._process.terminate()
        self._sockets.cleanup()


@pytest.fixture
def ray_cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """A running Ray cluster."""
    cluster = RayCluster(tmp_path)
    try:
        cluster.wait_until_ready()
        yield cluster
    finally:
        cluster.close()


@simulates
@pytest.mark.long
def test_a_ray_that_is_there_is_used_and_outlasts_the_simulations(
    tmp_path: Path, ray_cluster: RayCluster
) -> None:
    person = Person(tmp_path, RAY_ADDRESS=ray_cluster.address)
    started = person.local("start")
    try:
        assert started.returncode == 0, started.stderr
        configured = ["--num-supernodes", "10", "--client-resources-num-cpus", "1"]
        person.flwr("federation", "simulation-config", *configured)
        assert RAN in person.flwr("run", APPS / "simulated", "--stream")
        stopped = person.run(pause=60)
        wait_until(ray_cluster.players, PATIENCE, "its nodes in that Ray", every=0.5)
        assert not person.processes("raylet|gcs_server")

        person.flwr("stop", str(stopped))

        wait_until(lambda: not ray_cluster.players(), PATIENCE, "the end of its nodes")
        assert person.status(stopped) == "finished:stopped"
        assert accepts_connections(ray_cluster.address)
    finally:
        person.local("stop")
    assert not person.processes()


@simulates
@pytest.mark.long
def test_what_was_there_is_there_after_all_was_killed_and_nothing_is_left(person: Person) -> None:
    former = person.runs()
    completed = [one for one, run in former.items() if run["status"] == "finished:completed"]
    logs = {one: person.flwr("log", str(one), "--show") for one in completed[:1]}
    run_id = person.run(pause=60)
    person.wait_for_ray()

    os.kill(person.owner(), signal.SIGKILL)
    for process in person.processes("guard.py|flower-superexec"):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    started = person.local("start")

    assert started.returncode == 0, started.stderr
    person.assert_no_simulation_is_left()
    assert person.runs().keys() == former.keys() | {run_id}
    assert {one: person.flwr("log", str(one), "--show") for one in logs} == logs
    person.flwr("stop", str(run_id))


@simulates
@pytest.mark.long
def test_stopping_the_runtime_ends_everything(person: Person) -> None:
    run_id = person.run(pause=60)
    person.wait_for_ray()

    stopped = person.local("stop")

    assert stopped.returncode == 0, stopped.stderr
    assert not person.processes()
    assert "Nothing runs on" in person.local("stop").stdout
    assert person.local("status").returncode == 1
    assert person.local("start").returncode == 0
    assert person.runs()[run_id]["status"] == "finished:failed"
    assert "was shut down" in person.runs()[run_id]["status-details"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FLWR_HOME": "/proc/nowhere"}, "cannot be used"),
        ({"RAY_ADDRESS": "127.0.0.1:9"}, "RAY_ADDRESS is 127.0.0.1:9, where no Ray answers"),
        ({"FLWR_LOCAL_CONTROL_API_PORT": "many"}, "FLWR_LOCAL_CONTROL_API_PORT is 'many'"),
        (
            {"FLOWER_NATS_LOCAL_MAX_CONCURRENT_SIMULATIONS": "0"},
            "'0' is not a whole number from 1 to 10000",
        ),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_started(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    person = Person(tmp_path, **variables)

    refused = person.local("start")

    assert refused.returncode != 0
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not person.processes()


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("ray.py", "raise ImportError('a symbol is missing')", "ImportError: a symbol is missing"),
        ("sitecustomize.py", "import sys; sys.modules['ray'] = None", "which is not installed"),
    ],
)
def test_a_ray_that_is_broken_or_missing_is_told_and_nothing_is_started(
    tmp_path: Path, file: str, text: str, said: str
) -> None:
    (tmp_path / file).write_text(text)
    person = Person(tmp_path, PYTHONPATH=str(tmp_path))

    refused = person.local("start")

    assert refused.returncode == 1
    assert said in refused.stderr
    assert "'.[simulation]'" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not person.processes()


def test_a_port_that_somebody_else_has_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        person = Person(tmp_path, FLWR_LOCAL_CONTROL_API_PORT=str(port))

        refused = person.local("start")

    assert refused.returncode == 1
    assert f"Port {port} is taken by" in refused.stderr
    assert f"(pid {os.getpid()})" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
def test_a_port_that_another_user_has_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = subprocess.Popen(["sleep", "600"], user="nobody", pass_fds=[taken.fileno()])
    person = Person(tmp_path, FLWR_LOCAL_CONTROL_API_PORT=str(port))

    try:
        # Root without its capabilities sees no more of others' processes than any other user.
        refused = person.local("start", through=("setpriv", "--bounding-set", "-all"))
    finally:
        other.kill()
        other.wait()

    assert refused.returncode == 1
    assert f"Port {port} is in use by a program of another user" in refused.stderr
    assert "FLWR_LOCAL_CONTROL_API_PORT to other ports" in refused.stderr
    assert not person.processes()


def test_a_unit_for_systemd_starts_the_same_and_can_be_taken_away(tmp_path: Path) -> None:
    person = Person(tmp_path, XDG_CONFIG_HOME=str(tmp_path / "config"))

    said = person.local("install")

    unit = tmp_path / "config" / "systemd" / "user" / "flower-nats-local.service"
    assert said.returncode == 0, said.stderr
    assert f"rm {unit}" in said.stdout
    text = unit.read_text()
    assert f'"local" "serve" "--data-dir" "{person.data}"' in text
    assert f'Environment="FLWR_HOME={person.home}"' in text


def test_one_that_was_never_started_is_not_stopped(tmp_path: Path) -> None:
    person = Person(tmp_path)

    refused = person.local("stop")

    assert refused.returncode == 1
    assert "flower-nats local start" in refused.stderr
