"""The Compose stacks run with their commands, environment and files, as plain processes."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from flower_nats.wire.methods import BY_NAME, Method
from harness.certificates import (
    ServerCertificates,
    create_server_certificates,
    in_file,
    shown_at,
)
from harness.children import wait_until
from harness.flower import Addresses
from harness.oidc_issuer import SECRET, OidcIssuer, sign_in, why_not
from tests.e2e.federation import Federation
from tests.e2e.servers import ServerOptions, ServerUnderTest
from tests.integration.composition import compose, read_env_file
from tests.integration.containers import Stack

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "examples" / "digits"


@contextmanager
def running(
    folder: Path,
    *files: str,
    certified: bool = False,
    secrets: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Run a stack as described in docs/compose.md: the scripts first, then all containers.

    `secrets` are further files in secrets/, `settings` are put into .env.
    """
    compose_folder = folder / "compose"
    used_here = shutil.ignore_patterns(".env", "secrets")
    shutil.copytree(REPOSITORY / "compose", compose_folder, ignore=used_here)
    subprocess.run([compose_folder / "init.sh"], check=True)
    for name, text in (secrets or {}).items():
        (compose_folder / "secrets" / name).write_text(text)
    variables = read_env_file(compose_folder / ".env") | dict(settings or {})
    composition = compose([compose_folder / file for file in files], variables)
    stack = Stack(composition, compose_folder, folder / "containers")
    script, addresses = (
        compose_folder / "certificates.sh",
        [one.address for one in stack.containers],
    )
    # In these tests containers know each other by addresses.
    subprocess.run([script, "--core", *addresses], check=True)
    if certified:
        subprocess.run([script, *addresses], check=True)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def federation_around(stack: Stack, folder: Path) -> Federation:
    """Return the clients outside a stack: the flwr command, on the published ports."""
    secrets = stack.compose_folder / "secrets"
    certificates = ServerCertificates(
        secrets / "ca.crt", secrets / "tls/server.pem", secrets / "tls/server.pem.key"
    )
    options = ServerOptions(certificates if certificates.ca_certificate.exists() else None)
    (folder / "outside").mkdir()
    server = ServerUnderTest(folder / "outside", options)
    address = stack.one("balancer").address
    # The flwr command calls the port of Control over HTTP.
    server.addresses = Addresses(*(f"{address}:{port}" for port in (9091, 9092, 9093, 9093)))
    return Federation(server, folder / "cli")


def train(federation: Federation) -> str:
    """Run the example app on two nodes to its end, and return its log."""
    done = federation.cli("run", DIGITS, "--run-config", "nodes=2 rounds=1", "--stream")
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_durable(stack: Stack, copies: str) -> None:
    """Check the durability of the stack with the command in docs/compose.md."""
    deadline = time.monotonic() + 60
    done = stack.run_in(stack.of("superlink")[0], "flower-nats", "status")
    # The SuperExec may not have called yet.
    while done.returncode != 0 and time.monotonic() < deadline:
        done = stack.run_in(stack.of("superlink")[0], "flower-nats", "status")
    assert done.returncode == 0, done.stdout
    assert f"broker: {copies} of every message, synced to disk before it is" in done.stdout
    assert "database: synced to disk before a commit is acknowledged" in done.stdout


@pytest.mark.long
def test_a_newcomer_trains_on_the_stack_for_one_machine(tmp_path: Path) -> None:
    with running(tmp_path, "compose.yaml") as stack:
        assert "round 1  accuracy" in train(federation_around(stack, tmp_path))
        assert_durable(stack, "1 copy")
        assert_one_api_on_each_port(stack)


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_people_whom_an_issuer_knows_log_in(tmp_path: Path) -> None:
    (tmp_path / "issuer").mkdir()
    certificates = create_server_certificates(tmp_path / "issuer")
    issuer = OidcIssuer(tmp_path / "issuer", certificates, host="localhost")
    settings = {
        "OIDC_ISSUER": issuer.url,
        "OIDC_CLIENT_ID": "post",
        "OIDC_CLIENT_SECRET_FILE": "/run/oidc/secret",
        "OIDC_CA_CERTFILE": "/run/oidc/ca.crt",
        "SELF_REGISTRATION": "true",
    }
    secrets = {
        "oidc/secret": f"{SECRET}\n",
        "oidc/ca.crt": certificates.ca_certificate.read_text(),
    }
    files = ("compose.yaml", "compose.tls.yaml", "compose.oidc.yaml")
    stack_running = partial(running, certified=True, secrets=secrets, settings=settings)
    with asyncio.Runner() as runner, stack_running(tmp_path, *files) as stack:
        runner.run(issuer.start())
        try:
            federation = federation_around(stack, tmp_path)
            login = federation.start_cli("login", "login")
            url = login.wait_for_match(re.compile(r"https://localhost:\S+"))[0]
            runner.run(sign_in(url, "ana", certificates))
            wait_until(lambda: login.exit_code is not None, 30.0, "flwr login to end")
            listed = federation.cli("federation", "list")
        finally:
            federation.close()
            runner.run(issuer.stop())
        accounts = stack.run_in(stack.one("superlink"), "flower-nats", "account", "list")

    assert login.exit_code == 0, login.output()
    assert listed.returncode == 0, listed.stderr
    assert "ana-hospital.example" in accounts.stdout


def assert_one_api_on_each_port(stack: Stack) -> None:
    """Call Control and Fleet on the port of apps, and Control on the ports of SuperNodes."""
    balancer, for_apps = stack.one("balancer").address, stack.one("app-balancer").address
    list_runs, nodes = BY_NAME[("Control", "ListRuns")], BY_NAME[("Fleet", "PullMessages")]

    assert answers(f"{balancer}:9093", list_runs) == (200, "OK")
    for address, method in (
        (f"{for_apps}:9091", list_runs),
        (f"{for_apps}:9091", nodes),
        (f"{balancer}:9092", list_runs),
        (f"{balancer}:9093", nodes),
    ):
        assert answers(address, method) == (404, "UNIMPLEMENTED"), (address, method.name)


def answers(address: str, method: Method) -> tuple[int, str]:
    """Return the answers to a call over HTTP, and over gRPC."""
    url, protobuf = f"http://{address}{method.http_path}", "application/protobuf"
    posted = httpx.post(url, headers={"content-type": protobuf, "accept": protobuf}, timeout=30)
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(method.path)
        try:
            call(b"", timeout=30)
        except grpc.RpcError as exc:
            failed: Any = exc
            return posted.status_code, failed.code().name
    return posted.status_code, "OK"


def assert_renewed(stack: Stack) -> None:
    """Renew a certificate as described in docs/compose.md: all its servers show it soon."""
    balancer, gateway = stack.one("balancer"), stack.of("gateway")[1]
    renewed = stack.compose_folder / "secrets/tls/server.pem"
    former = in_file(renewed)
    servers = [f"{balancer.address}:{port}" for port in (9092, 9093)]
    servers += [f"{stack.one('app-balancer').address}:9091"]
    servers += [f"{gateway.address}:{port}" for port in (8000, 9091, 9092, 9093)]
    assert {shown_at(address) for address in servers} == {former}

    addresses = [one.address for one in stack.containers]
    subprocess.run([stack.compose_folder / "certificates.sh", *addresses], check=True)
    for container in (balancer, stack.one("app-balancer"), gateway):
        stack.mount_again(container, "/run/tls")

    shown = {in_file(renewed)}
    assert shown != {former}
    wait_until(lambda: {shown_at(one) for one in servers} == shown, 20.0, "the new certificate")
