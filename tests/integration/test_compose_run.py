"""The Compose stacks run: their very commands, environment and files, as plain processes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.certificates import ServerCertificates, in_file, shown_at
from harness.children import wait_until
from harness.flower import Addresses
from tests.e2e.federation import Federation
from tests.e2e.servers import ServerOptions, ServerUnderTest
from tests.integration.composition import compose, read_env_file
from tests.integration.containers import Stack

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "examples" / "digits"


@contextmanager
def running(folder: Path, *files: str, certified: bool = False) -> Iterator[Stack]:
    """Run a stack as docs/compose.md says: the scripts first, then all containers."""
    compose_folder = folder / "compose"
    used_here = shutil.ignore_patterns(".env", "secrets")
    shutil.copytree(REPOSITORY / "compose", compose_folder, ignore=used_here)
    subprocess.run([compose_folder / "init.sh"], check=True)
    variables = read_env_file(compose_folder / ".env")
    # Everything that the app needs is installed; no test goes to a package registry.
    composition = compose(
        [compose_folder / file for file in files], variables | {"SUPEREXEC_FLAGS": ""}
    )
    stack = Stack(composition, compose_folder, folder / "containers")
    if certified:
        balancer = stack.one("balancer").address
        subprocess.run([compose_folder / "certificates.sh", balancer], check=True)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def federation_around(stack: Stack, folder: Path) -> Federation:
    """Return what uses a stack from the outside: the flwr command, on the published ports."""
    secrets = stack.compose_folder / "secrets"
    certificates = ServerCertificates(
        secrets / "ca.crt", secrets / "tls/server.pem", secrets / "tls/server.pem.key"
    )
    options = ServerOptions(certificates if certificates.ca_certificate.exists() else None)
    (folder / "outside").mkdir()
    server = ServerUnderTest(folder / "outside", options)
    address = stack.one("balancer").address
    server.addresses = Addresses(*(f"{address}:{port}" for port in (9091, 9092, 9093, 8000)))
    return Federation(server, folder / "cli")


def train(federation: Federation) -> str:
    """Train the example app on two nodes to its end and return its log."""
    done = federation.cli("run", DIGITS, "--run-config", "nodes=2 rounds=1", "--stream")
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_durable(stack: Stack, copies: str) -> None:
    """Ask for the promises of the stack as docs/compose.md says."""
    done = stack.run_in(stack.of("superlink")[0], "flower-nats", "status")
    assert done.returncode == 0, done.stdout
    assert f"broker: {copies} of every message, synced to disk before it is" in done.stdout
    assert "database: synced to disk before a commit is acknowledged" in done.stdout


def test_a_newcomer_trains_on_the_stack_for_one_machine(tmp_path: Path) -> None:
    with running(tmp_path, "compose.yaml") as stack:
        assert "round 1  accuracy" in train(federation_around(stack, tmp_path))
        assert_durable(stack, "1 copy")


def test_the_stack_for_high_availability_goes_on_without_one_of_each(tmp_path: Path) -> None:
    with running(tmp_path, "compose.ha.yaml", "compose.tls.yaml", certified=True) as stack:
        federation = federation_around(stack, tmp_path)
        assert_durable(stack, "3 copies")
        run_id = federation.run_app(str(DIGITS), "nodes=2 rounds=1")
        federation.wait_for_status(run_id, "running")

        for service in ("gateway", "superlink", "nats-1"):
            stack.of(service)[0].running.kill()

        assert "round 1  accuracy" in federation.log_of(run_id)
        assert federation.status_of(run_id) == "finished:completed"
        assert sorted(federation.nodes().values()) == ["online", "online"]
        assert_renewed(stack)


def assert_renewed(stack: Stack) -> None:
    """Make a certificate as docs/compose.md says: what serves with it shows it soon."""
    balancer, gateway = stack.one("balancer"), stack.of("gateway")[1]
    renewed = stack.compose_folder / "secrets/tls/server.pem"
    former = in_file(renewed)
    servers = [f"{balancer.address}:{port}" for port in (8000, 9092, 9093)]
    servers += [f"{gateway.address}:{port}" for port in (8000, 9091, 9092, 9093)]
    assert {shown_at(address) for address in servers} == {former}

    subprocess.run([stack.compose_folder / "certificates.sh", balancer.address], check=True)
    for container in (balancer, gateway):
        stack.mount_again(container, "/run/tls")

    shown = {in_file(renewed)}
    assert shown != {former}
    wait_until(lambda: {shown_at(one) for one in servers} == shown, 20.0, "the new certificate")
