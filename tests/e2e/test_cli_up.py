"""`flower-nats up`, `down` and `status`, run as commands like an operator runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.certificates import create_server_certificates
from harness.children import PATIENCE, Child, ended, wait_until
from harness.environment import SCRIPTS, clean_environment, free_port
from tests.e2e.federation import APPS, run_id_in
from tests.faults.small_disk import read_only_folder

START_TIMEOUT = 60.0


class Runtime:
    """`flower-nats up` on a data directory, on free ports."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self._flags = flags
        self._environment = {"FLWR_HOME": str(folder / "flwr-home"), **environment}
        self.up = self.start_up("up")

    def start_up(self, name: str) -> Child:
        """Start `flower-nats up` on the directory."""
        anywhere = "127.0.0.1:0"
        apis = ("http", "serverappio", "fleet", "control")
        addresses = [flag for api in apis for flag in (f"--{api}-api-address", anywhere)]
        return Child(
            ["flower-nats", "up", "--data-dir", str(self.data_dir), *addresses, *self._flags],
            log_file=self.folder / f"{name}.log",
            environment=self._environment,
        )

    def wait_until_ready(self) -> None:
        """Wait until `up` says that the runtime is ready."""
        self.up.wait_for_output("ready", START_TIMEOUT)

    def family(self) -> list[psutil.Process]:
        """Return the process of `up` and all its descendants."""
        parent = psutil.Process(self.up.pid)
        return [parent, *parent.children(recursive=True)]

    def pid_of(self, process: str) -> int | None:
        """Return the pid of one of its processes, or None during a restart of the process."""
        for pid_file in self.data_dir.glob(f"*/{process}.pid"):
            with suppress(FileNotFoundError):
                return int(json.loads(pid_file.read_text())["pid"])
        return None

    def pids(self) -> dict[str, str]:
        """Return the pid of each process from its pid file; children of PostgreSQL are left out."""
        return {path.stem: path.read_text() for path in self.data_dir.glob("*/*.pid")}

    def flower_nats(self, command: str, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run another `flower-nats` command on the directory."""
        return run("flower-nats", command, "--data-dir", str(self.data_dir), *flags)

    def status(self) -> dict[str, Any]:
        """Return the report of `flower-nats status`."""
        report: dict[str, Any] = json.loads(self.flower_nats("status", "--format", "json").stdout)
        return report


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / command[0]), *command[1:]],
        env=clean_environment(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def write_config(runtime: Runtime, home: Path) -> None:
    """Write the three lines that `up` prints for users into a Flower config."""
    config = re.search(r"\[superlink\.flower-nats\]\n.+\n.+\n", runtime.up.output())
    assert config is not None
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(config[0])


def log_of(run_id: int, home: dict[str, str]) -> str:
    return run("flwr", "log", str(run_id), "flower-nats", "--show", **home).stdout


def statuses(home: dict[str, str]) -> list[str]:
    """Return the status of each run, newest first."""
    listed = json.loads(run("flwr", "list", "flower-nats", "--format", "json", **home).stdout)
    return [one["status"] for one in listed["runs"]]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A ready runtime that the tests share and leave healthy."""
    running = Runtime(tmp_path_factory.mktemp("up"))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.up.terminate()


@pytest.fixture
def own_runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A runtime, not ready yet, that one test alone uses and may end."""
    running = Runtime(tmp_path, "--isolation", "process")
    yield running
    running.up.terminate()


def test_connect_writes_the_lines_into_the_file_that_flwr_has_made(
    runtime: Runtime, tmp_path: Path
) -> None:
    home = {"FLWR_HOME": str(tmp_path)}
    connect = ("flower-nats", "connect", "--data-dir", str(runtime.data_dir))

    unasked = run(*connect, **home)
    assert unasked.returncode == 1
    assert "+[superlink.flower-nats]" in unasked.stdout
    assert "flower-nats" not in (tmp_path / "config.toml").read_text()

    assert run(*connect, "--yes", "--default", **home).returncode == 0
    listed = run("flwr", "list", "--format", "json", **home)

    assert json.loads(listed.stdout) == {"success": True, "runs": []}
    # The default connections of flwr are still there.
    assert "[superlink.local]" in (tmp_path / "config.toml").read_text()
    assert "has this connection already" in run(*connect, "--default", **home).stdout


def test_up_prints_the_lines_that_make_flwr_find_it(runtime: Runtime, tmp_path: Path) -> None:
    write_config(runtime, tmp_path)

    listed = run("flwr", "list", "flower-nats", "--format", "json", FLWR_HOME=str(tmp_path))

    assert json.loads(listed.stdout) == {"success": True, "runs": []}


def test_status_shows_that_everything_is_well_and_durable(runtime: Runtime) -> None:
    report = runtime.status()

    assert report["healthy"] is True
    assert report["durability"]["broker"]["sync"] == "always"
    assert report["durability"]["database"]["synced"] is True
    assert "superlink" in {replica["kind"] for replica in report["replicas"]}


def test_status_is_readable(runtime: Runtime) -> None:
    shown = runtime.flower_nats("status")

    assert shown.returncode == 0
    for word in ("healthy", "runs", "nodes", "replica", "durability", "broker", "database"):
        assert word in shown.stdout


def test_a_webhook_is_added_tried_and_removed_by_command(runtime: Runtime) -> None:
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    def webhook(command: str, *words: str) -> subprocess.CompletedProcess[str]:
        return run("flower-nats", "webhook", command, *words, "--data-dir", str(runtime.data_dir))

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{receiver.server_port}/hook"
        added = webhook("add", url, "--kind", "run_failed")
        assert "whsec_" in added.stdout
        [number] = re.findall(r"Webhook (\d+) was added", added.stdout)
        assert webhook("test", number).returncode == 0
        wait_until(lambda: got, PATIENCE, "a test of the webhook")
        assert [one["kind"] for one in got] == ["webhook_tested"]
        [listed] = json.loads(webhook("list", "--format", "json").stdout)
        assert (listed["webhook_id"], listed["kinds"]) == (number, ["run_failed"])
        assert webhook("remove", number).returncode == 0
    finally:
        receiver.shutdown()
        receiver.server_close()

    refused = webhook("test", number)
    assert refused.returncode == 1
    assert f"There is no webhook {number}. Remedy" in refused.stderr
    trail = runtime.flower_nats("audit", "--json").stdout
    for action in ("AddWebhook", "TestWebhook", "RemoveWebhook"):
        assert any(
            f'"{action}"' in line and f"webhook {number}" in line for line in trail.splitlines()
        )


def test_a_second_up_names_the_first_and_starts_nothing(runtime: Runtime) -> None:
    before = runtime.pids()

    second = runtime.flower_nats("up")

    assert second.returncode == 1
    assert f"pid {runtime.up.pid}" in second.stderr
    assert runtime.pids() == before
    assert runtime.status()["healthy"] is True


@pytest.mark.parametrize("process", ["gateway-1", "superlink-1", "superexec", "postgres", "nats"])
def test_a_process_that_dies_is_started_again(runtime: Runtime, process: str) -> None:
    pid = runtime.pid_of(process)
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    wait_until(lambda: runtime.pid_of(process) not in (None, pid), 10.0, f"a new {process}")
    wait_until(lambda: runtime.status()["healthy"], 20.0, "a healthy runtime", every=0.5)


def test_passwords_are_in_no_command_line_and_no_environment(runtime: Runtime) -> None:
    passwords = [path.read_text() for path in runtime.data_dir.glob("*/*password")]

    lines = [" ".join(process.cmdline()) for process in runtime.family()]
    lines += [value for process in runtime.family() for value in environment_of(process).values()]

    assert len(passwords) == 4
    assert not [line for line in lines for password in passwords if password in line]


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return the environment of a process; PostgreSQL processes have none that can be read."""
    with suppress(psutil.AccessDenied):
        return process.environ()
    return {}


@pytest.mark.parametrize("replicas", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_what_runs_on_its_own_machine_needs_no_certificate_for_it(
    tmp_path: Path, replicas: str
) -> None:
    made = create_server_certificates(tmp_path, "runtime.example.org")
    tls = [
        *("--ssl-certfile", str(made.certificate), "--ssl-keyfile", str(made.key)),
        *("--ssl-ca-certfile", str(made.ca_certificate), "--replicas", replicas),
    ]
    runtime = Runtime(tmp_path, *tls)
    try:
        runtime.wait_until_ready()
        supernodes = re.compile(r"--superlink runtime\.example\.org:(\d+)")
        port = int(runtime.up.wait_for_match(supernodes)[1])
        superexec = psutil.Process(runtime.pid_of("superexec"))
        connected = partial(connections_to_elsewhere, superexec, port)

        # The SuperExec waits for a task, for up to 20 s in one call.
        wait_until(connected, PATIENCE, "the SuperExec to call")
        log = (runtime.data_dir / "logs" / "superexec.log").read_text()
        assert "Connection attempt failed" not in log
        # Control listens only on the loopback interface: no client could verify a certificate.
        write_config(runtime, tmp_path / "flwr-home")
        listed = run("flwr", "list", "flower-nats", FLWR_HOME=str(tmp_path / "flwr-home"))
        assert listed.returncode == 0, listed.stderr
    finally:
        runtime.up.terminate()


def connections_to_elsewhere(process: psutil.Process, port: int) -> bool:
    """Return whether a process or a descendant is connected to another local port than this."""
    family = [process, *process.children(recursive=True)]
    peers = [
        one.raddr
        for member in family
        for one in member.net_connections()
        if one.status == psutil.CONN_ESTABLISHED
    ]
    return any(peer.ip == "127.0.0.1" and peer.port != port for peer in peers if peer)


def test_a_port_in_use_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        # The check must also notice a program that shares its port, like stock servers.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        refused = run(
            "flower-nats", "up", "--data-dir", str(tmp_path), "--fleet-api-address", address
        )

    assert refused.returncode == 1
    assert f"Cannot listen on {address}" in refused.stderr
    assert not list(tmp_path.glob("*/*.pid"))


@pytest.fixture
def runtime_of_apps(tmp_path: Path) -> Iterator[Runtime]:
    """A runtime for one test, which runs apps without installing dependencies."""
    running = Runtime(tmp_path, "--disable-runtime-dependency-installation")
    yield running
    running.up.terminate()


def test_a_run_that_is_under_way_ends_with_its_log_and_the_reason_or_is_waited_for(
    runtime_of_apps: Runtime, tmp_path: Path
) -> None:
    runtime = runtime_of_apps
    runtime.wait_until_ready()
    write_config(runtime, tmp_path / "flwr-home")
    home = {"FLWR_HOME": str(tmp_path / "flwr-home")}
    run_id = run_id_in(run("flwr", "run", str(APPS / "slow"), "flower-nats", **home).stdout)
    stream = Child(
        ["flwr", "log", str(run_id), "flower-nats", "--stream"],
        log_file=tmp_path / "stream.log",
        environment=home,
    )
    try:
        stream.wait_for_output("line 2")
    finally:
        stream.terminate()
    family = runtime.family()

    refused = runtime.flower_nats("down")
    assert refused.returncode == 1
    assert f"{run_id}  flower-nats/slow 1.0.0  running" in refused.stdout
    assert "--wait to let them end first, or --yes to end them" in refused.stderr
    assert runtime.flower_nats("down", "--yes").returncode == 0
    assert ended(family)
    runtime.up = runtime.start_up("again")
    runtime.wait_until_ready()
    write_config(runtime, tmp_path / "flwr-home")

    assert "line 2" in log_of(run_id, home)
    told = runtime.flower_nats("status", "--run", str(run_id)).stdout
    assert "was shut down while the run was under way" in told

    run("flwr", "run", str(APPS / "slow"), "flower-nats", "--run-config", "lines=3", **home)
    waited = runtime.flower_nats("down", "--wait")
    assert waited.returncode == 0, waited.stderr
    runtime.up = runtime.start_up("once-more")
    runtime.wait_until_ready()
    write_config(runtime, tmp_path / "flwr-home")
    assert statuses(home) == ["finished:completed", "finished:failed"]


def test_ctrl_c_ends_everything(own_runtime: Runtime) -> None:
    own_runtime.wait_until_ready()
    # The isolation is `process`: the user runs the SuperExec for ServerApps.
    own_runtime.up.wait_for_output("Start a SuperExec:    flower-superexec ")
    family = own_runtime.family()

    own_runtime.up._process.send_signal(signal.SIGINT)

    assert own_runtime.up.wait(timeout=PATIENCE) == 0
    assert ended(family)


def test_up_can_be_ended_before_it_is_ready(own_runtime: Runtime) -> None:
    wait_until(lambda: list(own_runtime.data_dir.glob("*/nats.pid")), PATIENCE, "the first process")
    family = own_runtime.family()

    own_runtime.up.ask_to_end()

    assert own_runtime.up.wait(timeout=PATIENCE) == 0
    assert ended(family)


def test_down_ends_a_runtime_and_status_says_so(own_runtime: Runtime) -> None:
    own_runtime.wait_until_ready()
    family = own_runtime.family()

    first, second = own_runtime.flower_nats("down"), own_runtime.flower_nats("down")

    assert first.returncode == second.returncode == 0
    assert "has ended" in first.stdout
    assert "Nothing runs" in second.stdout
    assert own_runtime.up.wait(timeout=PATIENCE) == 0
    assert ended(family)
    assert own_runtime.status()["state"] == "stopped"
    assert own_runtime.flower_nats("status").returncode == 1


def test_everything_ends_with_an_up_that_is_killed_and_the_next_one_works(
    own_runtime: Runtime,
) -> None:
    own_runtime.wait_until_ready()
    family = own_runtime.family()

    own_runtime.up.kill()
    own_runtime.up = own_runtime.start_up("next")

    own_runtime.wait_until_ready()
    assert ended(family)
    report = own_runtime.status()
    # The isolation is `process`, and no SuperExec was started.
    assert all("no SuperExec" in problem for problem in report["problems"]), report


def test_everything_ends_with_an_up_that_is_killed(own_runtime: Runtime) -> None:
    own_runtime.wait_until_ready()
    family = own_runtime.family()

    own_runtime.up.kill()

    wait_until(lambda: ended(family), 10.0, "the end of every process")
    assert own_runtime.status()["state"] == "crashed"
    assert "Remedy: start `flower-nats up` again." in own_runtime.flower_nats("status").stdout


def test_a_server_that_cannot_start_ends_up_with_its_reason(tmp_path: Path) -> None:
    store = tmp_path / "nats" / "store"
    store.mkdir(parents=True)
    (store / "jetstream").write_text("not a directory of streams")

    failed = run(
        *("flower-nats", "up", "--data-dir", str(tmp_path), "--isolation", "process"),
        *("--fleet-api-address", f"127.0.0.1:{free_port()}"),
        *("--control-api-address", f"127.0.0.1:{free_port()}"),
        *("--http-api-address", f"127.0.0.1:{free_port()}"),
        *("--serverappio-api-address", f"127.0.0.1:{free_port()}"),
    )

    assert failed.returncode == 1
    assert "nats ended with exit code" in failed.stderr


NOBODY = "http://127.0.0.1:9"
PROXY = {name: NOBODY for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
NO_HOME = {"HOME": "/nonexistent", "FLWR_HOME": ""}


@pytest.fixture
def read_only_home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a user with a read-only home."""
    with read_only_folder(tmp_path) as home:
        yield {"HOME": str(home), "FLWR_HOME": ""}


def test_runs_start_behind_a_web_proxy_from_a_home_that_is_read_only(
    read_only_home: dict[str, str], tmp_path: Path
) -> None:
    assert_that_runs_start(tmp_path, **PROXY, **read_only_home)


@pytest.mark.long
def test_runs_start_without_a_home(tmp_path: Path) -> None:
    assert_that_runs_start(tmp_path, **NO_HOME)


def assert_that_runs_start(tmp_path: Path, **variables: str) -> None:
    """Check that a run starts in a runtime with these variables."""
    runtime = Runtime(tmp_path, "--disable-runtime-dependency-installation", **variables)
    try:
        runtime.wait_until_ready()
        write_config(runtime, tmp_path / "cli")

        done = run(
            *("flwr", "run", str(APPS / "nothing"), "flower-nats", "--stream"),
            *("--run-config", "nodes=0"),
            FLWR_HOME=str(tmp_path / "cli"),
        )

        assert "round 1 gathered 0 answers" in done.stdout + done.stderr
    finally:
        runtime.up.terminate()
