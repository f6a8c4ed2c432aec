"""`flower-nats up --http-health-address`: every process of a runtime serves its health."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flower_nats.embedded.ports import is_free
from harness.children import PATIENCE, wait_until
from harness.environment import accepts_connections, free_port
from tests.e2e.test_cli_up import Runtime

ORDER = ["superlink-1", "superlink-2", "gateway-1", "gateway-2"]


def read(address: str, page: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}{page}", timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as exc:
        return exc.read().decode()


def value(metrics: str, name: str) -> float | None:
    found = re.search(rf"^flower_nats_{name} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else None


@pytest.fixture(scope="module")
def first_port() -> int:
    """The first of four free ports in a row."""
    while not all(map(is_free, range(port := free_port(), port + len(ORDER)))):
        pass
    return port


@pytest.fixture(scope="module")
def stray_address() -> str:
    """An address in an environment variable that is meant for a gateway elsewhere."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def runtime(
    tmp_path_factory: pytest.TempPathFactory, first_port: int, stray_address: str
) -> Iterator[Runtime]:
    """Two replicas with health ports."""
    running = Runtime(
        tmp_path_factory.mktemp("health"),
        *("--replicas", "2", "--isolation", "process"),
        *("--http-health-address", f"127.0.0.1:{first_port}"),
        FLOWER_NATS_GATEWAY_HEALTH_SERVER_ADDRESS=stray_address,
        FLOWER_NATS_SUPERLINK_LOG_ROTATION_BACKUP_COUNT="no number",
    )
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.up.terminate()


def test_each_process_has_a_port_of_its_own_in_the_order_that_is_documented(
    runtime: Runtime, first_port: int
) -> None:
    addresses = runtime.status()["http_health"]

    assert addresses == {name: f"127.0.0.1:{port}" for port, name in enumerate(ORDER, first_port)}


def test_each_process_is_ready_and_gives_out_metrics(runtime: Runtime) -> None:
    addresses = runtime.status()["http_health"]

    wait_until(
        lambda: all("ok" in read(address, "/readyz") for address in addresses.values()),
        20.0,
        "every process to be ready",
    )
    metrics = {name: read(address, "/metrics") for name, address in addresses.items()}

    assert [value(text, "ready") for text in metrics.values()] == [1, 1, 1, 1]
    for name, text in metrics.items():
        durable = value(text, "acknowledged_is_on_disk")
        assert durable == (1 if name.startswith("superlink") else None)
        assert (value(text, "held_calls") is None) == name.startswith("superlink")


def test_people_are_told_where_to_look(runtime: Runtime, first_port: int) -> None:
    shown = runtime.flower_nats("status").stdout
    said = runtime.up.output()

    for port, name in enumerate(ORDER, first_port):
        assert f"{name} 127.0.0.1:{port}" in shown
        assert f"http://127.0.0.1:{port}/metrics" in said


def test_settings_of_other_processes_do_not_reach_those_of_up(
    runtime: Runtime, stray_address: str
) -> None:
    ours = {"FLOWER_NATS_GATEWAY_NATS_FILE", "FLOWER_NATS_SUPERLINK_NATS_FILE"}
    ours |= {"FLOWER_NATS_SUPERLINK_DATABASE_FILE"}

    replicas = [pid for pid in map(runtime.pid_of, ORDER) if pid is not None]
    variables = {name for pid in replicas for name in psutil.Process(pid).environ()}

    assert {name for name in variables if name.startswith("FLOWER_NATS_")} == ours
    assert not accepts_connections(stray_address)


def test_a_health_port_in_use_is_named_and_nothing_is_started(
    runtime: Runtime, first_port: int, tmp_path: Path
) -> None:
    second = Runtime(
        tmp_path, "--isolation", "process", "--http-health-address", f"127.0.0.1:{first_port + 3}"
    )

    assert second.up.wait(timeout=PATIENCE) == 1
    assert f"Cannot listen on 127.0.0.1:{first_port + 3}" in second.up.output()
    assert not list(second.data_dir.glob("*/*.pid"))
