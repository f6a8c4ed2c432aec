"""Simulations on several hosts: each host has a SuperExec and its own limit of simulations."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness.children import PATIENCE, Child, wait_until
from tests.e2e.federation import Federation
from tests.e2e.servers import STOCK, ServerOptions, ServerUnderTest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(STOCK, reason="stock has one SuperLink"),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="ray is not installed: pip install '.[simulation]'",
    ),
]

ONE_AT_A_TIME = ("--simulation", "--max-concurrent-simulations", "1")


@pytest.fixture(scope="module")
def server_options() -> ServerOptions:
    return ServerOptions(more=ONE_AT_A_TIME)


@pytest.fixture
def second_host(federation_server: ServerUnderTest, tmp_path: Path) -> Iterator[Child]:
    """Another superlink of the same runtime, with its own SuperExec."""
    data = federation_server.folder / "data"
    host = Child(
        [
            *("flower-nats", "superlink", *ONE_AT_A_TIME),
            *("--nats-file", str(data / "run" / "nats.superlink.urls")),
            *("--database-file", str(data / "run" / "database.url")),
            *("--superexec-auth-secret-file", str(data / "superexec.secret")),
            *("--runtime-api-address", federation_server.addresses.http, "--insecure"),
            "--disable-runtime-dependency-installation",
        ],
        log_file=tmp_path / "second-host.log",
        environment={"FLWR_HOME": str(tmp_path / "flwr-home")},
    )
    yield host
    host.terminate()


def simulations_of(host: Child) -> set[int]:
    """Return the process ids of the simulations that a host runs."""
    found = set()
    for process in psutil.Process(host.pid).children(recursive=True):
        with suppress(psutil.Error):
            if re.search(r"python\S* \S*/flwr-simulation", " ".join(process.cmdline())):
                found.add(process.pid)
    return found


def test_two_hosts_take_twice_as_many_simulations(
    federation: Federation, federation_server: ServerUnderTest, second_host: Child
) -> None:
    configured = ["--num-supernodes", "2", "--client-resources-num-cpus", "1"]
    federation.cli("federation", "simulation-config", *configured)
    first, second, third = (
        federation.run_app("simulated", f"nodes=2 rounds=1 pause={pause}") for pause in (60, 60, 0)
    )

    hosts = [federation_server.process, second_host]
    for host in hosts:
        wait_until(lambda: len(simulations_of(host)) == 1, PATIENCE, "a simulation", every=0.5)  # noqa: B023
    for run_id in (first, second):
        federation.wait_for_status(run_id, "running")
    assert federation.status_of(third) == "pending"

    federation.cli("stop", str(first))

    federation.wait_for_status(third, "finished:completed")
    assert "round 1: 2 answers" in federation.log_of(third)
    assert federation.status_of(second) == "running"
    federation.cli("stop", str(second))
    for host in hosts:
        wait_until(lambda: not simulations_of(host), PATIENCE, "the end of all", every=0.5)  # noqa: B023
