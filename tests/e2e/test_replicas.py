"""Three of everything on one machine: any process may be killed, and no stock client notices.

TLS ends at the balancer. SuperNodes have registered keys.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from flower_nats_cli.datadir import DataDir
from harness.certificates import create_node_key, create_server_certificates
from harness.children import PATIENCE, Child, ended, wait_until
from harness.environment import SCRIPTS
from tests.e2e.federation import BOTH, Federation, SuperNode
from tests.e2e.servers import STOCK, ServerOptions, ServerUnderTest

pytestmark = pytest.mark.skipif(STOCK, reason="stock has one SuperLink")

KINDS = {"gateway": 3, "superlink": 3, "nats": 3}
LINE = re.compile(r"^line (\d+) printed", re.MULTILINE)
UNHURRIED = "rounds=100 seconds=10.0"
"""Messages are always under way, but few: a stock node starts a process for each message."""


@pytest.fixture(scope="module")
def server_options(workspace: Path) -> ServerOptions:
    certificates = create_server_certificates(workspace)
    return ServerOptions(certificates=certificates, supernode_auth=True, replicas=3)


@pytest.fixture(scope="module")
def supernodes(federation: Federation, workspace: Path) -> list[SuperNode]:
    processes = {}
    for name, version in zip(("alpha", "beta"), BOTH, strict=True):
        key = create_node_key(workspace, name)
        federation.cli("supernode", "register", key.public)
        processes[name] = federation.of(version).start_supernode_process(name, key)
    return [SuperNode(name, process) for name, process in processes.items()]


def status(server: ServerUnderTest) -> dict[str, Any]:
    """Return the report of `flower-nats status`."""
    command = [str(SCRIPTS / "flower-nats"), "status", "--format", "json"]
    done = subprocess.run(
        [*command, "--data-dir", str(server.folder / "data")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def pids(server: ServerUnderTest) -> dict[str, int]:
    """Return the ids of all processes of the runtime, by name."""
    found = DataDir(server.folder / "data").processes()
    return {name: pid for name, pid in found.items() if pid is not None}


def kill(server: ServerUnderTest, *names: str, number: signal.Signals = signal.SIGKILL) -> None:
    """End several processes at the same moment, and wait until `up` has restarted them."""
    before = pids(server)
    for name in names:
        os.kill(before[name], number)
    for name in names:
        pid = before[name]
        wait_until(lambda: pids(server).get(name, pid) != pid, 15.0, f"{name} to be started again")  # noqa: B023
    wait_until(lambda: status(server)["healthy"], 30.0, "a healthy runtime", every=1.0)


def serverapps(server: ServerUnderTest) -> list[psutil.Process]:
    """Return the running ServerApp processes."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    return [
        process
        for process in family
        if "flwr-serverapp" in process.name() and process.status() != psutil.STATUS_ZOMBIE
    ]


def follow(federation: Federation, name: str, run_id: int) -> list[Child]:
    """Follow the log of a run over each wire."""
    return [
        federation.of(version).start_cli(f"{name}-{version}", "log", str(run_id), "--stream")
        for version in BOTH
    ]


def wait_for_more_rounds(streams: list[Child]) -> None:
    """Wait until two more rounds are in the followed logs."""
    before = max(len(rounds_in(stream)) for stream in streams)
    wait_until(
        lambda: all(len(rounds_in(stream)) > before + 1 for stream in streams),
        PATIENCE,
        "more rounds",
    )


def rounds_in(stream: Child) -> list[int]:
    """Return the rounds in a log."""
    return [int(number) for number in re.findall(r"round (\d+) gathered 2", stream.output())]


def end_unharmed(
    federation: Federation, run_id: int, streams: list[Child], supernodes: list[SuperNode]
) -> None:
    """Stop a run; check that its log is complete and in order, and its nodes alive and online."""
    federation.cli("stop", str(run_id))
    federation.wait_for_status(run_id, "finished:stopped")
    assert [stream.wait(60.0) for stream in streams] == [0] * len(streams)
    for stream in streams:
        assert rounds_in(stream) == list(range(1, len(rounds_in(stream)) + 1))
    assert [node.process.exit_code for node in supernodes] == [None, None]
    nodes = federation.nodes()
    assert [nodes[node.node_id] for node in supernodes] == ["online", "online"]


def test_status_shows_all_of_them_and_three_copies_of_every_message(
    federation_server: ServerUnderTest,
) -> None:
    report = status(federation_server)

    kinds = sorted(replica["kind"] for replica in report["replicas"])
    assert kinds == [*["gateway"] * 3, "superexec", *["superlink"] * 3]

    expected = {f"{kind}-{n}" for kind, count in KINDS.items() for n in range(1, count + 1)}
    assert set(report["processes"]) == expected | {"balancer", "postgres", "superexec"}
    assert None not in report["processes"].values()
    assert report["durability"]["broker"]["replicas"] == 3


@pytest.mark.long
def test_a_run_and_its_log_outlive_every_gateway_every_superlink_and_every_nats_server_in_turn(
    federation: Federation, federation_server: ServerUnderTest, supernodes: list[SuperNode]
) -> None:
    run_id = federation.run_app("nothing", UNHURRIED)
    streams = follow(federation, "outliving", run_id)
    for stream in streams:
        stream.wait_for_output("round 1 gathered")

    for number in (1, 2, 3):
        kill(federation_server, *(f"{kind}-{number}" for kind in KINDS))
    wait_for_more_rounds(streams)

    end_unharmed(federation, run_id, streams, supernodes)


@pytest.mark.long
def test_a_run_and_its_log_outlive_stopped_replicas_and_servers_that_are_gone(
    federation: Federation, federation_server: ServerUnderTest, supernodes: list[SuperNode]
) -> None:
    run_id = federation.run_app("nothing", UNHURRIED)
    streams = follow(federation, "outages", run_id)
    for stream in streams:
        stream.wait_for_output("round 1 gathered")

    stopped = [pids(federation_server)[name] for name in ("gateway-1", "superlink-1")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        kill(federation_server, "postgres")
        wait_for_more_rounds(streams)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    running = pids(federation_server)
    for number in (1, 2, 3):
        os.kill(running[f"nats-{number}"], signal.SIGKILL)
    wait_for_more_rounds(streams)

    end_unharmed(federation, run_id, streams, supernodes)


@pytest.mark.long
def test_a_run_completes_though_each_gateway_is_killed_when_it_is_about_to_end(
    federation: Federation, federation_server: ServerUnderTest
) -> None:
    run_id = federation.run_app("slow", "lines=20 interval-seconds=0.3")
    streams = follow(federation, "ending", run_id)

    for number in (1, 2, 3):
        for stream in streams:
            stream.wait_for_output(f"line {6 * number} printed")
        kill(federation_server, f"gateway-{number}")
    federation.wait_for_status(run_id, "finished:completed")

    assert [stream.wait(60.0) for stream in streams] == [0] * len(streams)
    for stream in streams:
        assert [int(number) for number in LINE.findall(stream.output())] == list(range(1, 21))
    wait_until(lambda: not serverapps(federation_server), 30.0, "the ServerApp's process to end")


@pytest.mark.long
def test_a_rolling_restart_is_not_noticed(
    federation: Federation, federation_server: ServerUnderTest, supernodes: list[SuperNode]
) -> None:
    before = [len(node.process.output()) for node in supernodes]
    run_id = federation.run_app("nothing", "rounds=2 seconds=15.0")
    streams = follow(federation, "rolling", run_id)
    wait_until(lambda: supernodes[0].took_part_in(run_id), PATIENCE, "a node to be at work")

    for number in (1, 2, 3):
        members = [f"{kind}-{number}" for kind in KINDS]
        kill(federation_server, *members, number=signal.SIGTERM)
    federation.wait_for_status(run_id, "finished:completed", 120.0)

    assert [stream.wait(60.0) for stream in streams] == [0] * len(streams)
    for stream in streams:
        assert rounds_in(stream) == [1, 2]
        for node in supernodes:
            assert stream.output().count(f"node {node.node_id} answered") == 2
    assert [node.process.exit_code for node in supernodes] == [None, None]
    # Their connections were never refused or broken.
    for node, size in zip(supernodes, before, strict=True):
        assert "attempt failed" not in node.process.output()[size:]


def test_the_balancer_is_started_again(
    federation: Federation, federation_server: ServerUnderTest
) -> None:
    kill(federation_server, "balancer")

    wait_until(lambda: federation.cli("list").returncode == 0, 20.0, "flwr list to work", every=1.0)


def test_up_says_what_died(federation_server: ServerUnderTest) -> None:
    kill(federation_server, "gateway-1")

    output = federation_server.process.output()
    assert "process_died" in output and "process_restarted" in output


def test_a_second_up_starts_nothing(federation_server: ServerUnderTest) -> None:
    before = pids(federation_server)
    data = str(federation_server.folder / "data")

    second = subprocess.run(
        [str(SCRIPTS / "flower-nats"), "up", "--data-dir", data, "--replicas", "3"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert second.returncode == 1
    assert f"pid {federation_server.process.pid}" in second.stderr
    assert pids(federation_server) == before


def test_nothing_outlives_an_up_that_is_killed_and_the_next_goes_on(
    federation: Federation, federation_server: ServerUnderTest
) -> None:
    runs = {run["run-id"] for run in federation.cli_json("list")["runs"]}
    family = psutil.Process(federation_server.process.pid).children(recursive=True)

    federation_server.process.kill()
    wait_until(lambda: ended(family), PATIENCE, "the end of every process")
    federation_server.start()

    assert {run["run-id"] for run in federation.cli_json("list")["runs"]} == runs
    assert status(federation_server)["durability"]["broker"]["replicas"] == 3


def test_it_ends_in_order(federation_server: ServerUnderTest) -> None:
    federation_server.process.ask_to_end()

    assert federation_server.process.wait(PATIENCE) == 0


def test_streams_on_one_server_are_not_taken_for_safe(tmp_path: Path) -> None:
    (tmp_path / "data" / "nats").mkdir(parents=True)

    refused = subprocess.run(
        [str(SCRIPTS / "flower-nats"), "up", "--data-dir", str(tmp_path / "data"), "--replicas=3"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert refused.returncode == 1
    assert "on one NATS server" in refused.stderr
