"""Liveness and readiness over HTTP and gRPC, for balancers and orchestrators."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg_pool import AsyncConnectionPool

from flower_nats.embedded.nats_cluster import NatsCluster
from flower_nats.embedded.nats_server import NatsServer, find_nats_server
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from flower_nats.health import CannotListen, HealthServer, Readiness
from flower_nats.metrics import Metric, gauge
from flower_nats.settings import SuperlinkSettings
from flower_nats.store import pool
from flower_nats.superlink import worker
from harness import waiting
from harness.children import PATIENCE
from harness.environment import free_port
from harness.nodes import StockNode
from harness.wire import Wire
from tests.integration.test_status_over_nats import status

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def get(address: str, path: str) -> tuple[int, str]:
    """Return status and text of a page; status 0 if no server answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode().strip()
    except OSError:
        return 0, ""


def grpc_health(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=30).status)


async def until(condition: Callable[[], bool]) -> None:
    await waiting.until(lambda: asyncio.to_thread(condition))


@dataclass
class Replica:
    """A superlink or a gateway in its own process."""

    process: OwnedProcess
    health: str
    address: str = ""

    def ready(self) -> tuple[int, str]:
        return get(self.health, "/readyz")


def _process(kind: str, folder: Path, *flags: str, **environment: str) -> OwnedProcess:
    return OwnedProcess(
        ProcessSpec(
            name=kind,
            command=[sys.executable, "-P", "-m", "flower_nats_cli.main", kind, *flags],
            environment={**os.environ, **environment},
            log=folder / f"{kind}.log",
        )
    )


def make_superlink(folder: Path, nats_url: str, pg_dsn: str, *flags: str) -> Replica:
    health = f"127.0.0.1:{free_port()}"
    more = ["--isolation", "process", "--http-health-address", health, *flags]
    environment = {
        "FLOWER_NATS_SUPERLINK_NATS": nats_url,
        "FLOWER_NATS_SUPERLINK_DATABASE": pg_dsn,
    }
    return Replica(_process("superlink", folder, *more, **environment), health)


def make_gateway(folder: Path, nats_url: str, *flags: str) -> Replica:
    health, fleet, serverappio, control = (f"127.0.0.1:{free_port()}" for _ in range(4))
    more = ["--insecure", "--http-health-address", health, "--fleet-api-address", fleet]
    more += ["--http-api-address", f"127.0.0.1:{free_port()}"]
    more += ["--serverappio-api-address", serverappio, "--control-api-address", control, *flags]
    process = _process("gateway", folder, *more, FLOWER_NATS_GATEWAY_NATS=nats_url)
    return Replica(process, health, fleet)


async def test_a_superlink_whose_connections_are_lost_is_unready_and_then_ends(
    nats_url: str, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, seconds in (
        (pool, "CONNECT", 0.2),
        (pool, "_LOOK_EVERY", 0.1),
        (pool, "_LOST_AFTER", 3.0),
        (worker, "_LATELY", 1.0),
        (worker, "_ANNOUNCE_EVERY", 0.1),
    ):
        monkeypatch.setattr(module, name, seconds)
    health = f"127.0.0.1:{free_port()}"
    settings = SuperlinkSettings(nats=(nats_url,), database=pg_dsn, http_health_address=health)
    running = asyncio.create_task(worker.serve(settings, asyncio.Event()))
    await until(lambda: get(health, "/readyz") == (200, "ok"))

    # Given some fault in the pool: no connection comes back, and the database is well.
    async def lose(_pool: object, _connection: object) -> None:
        pass

    monkeypatch.setattr(AsyncConnectionPool, "putconn", lose)

    await until(lambda: get(health, "/readyz") == (503, "lacks database"))
    # Then the superlink ends, so that its supervisor restarts it.
    with pytest.raises(pool.PoolLost):
        await running


async def test_both_are_ready_when_what_they_need_answers_and_not_before(
    tmp_path: Path, pg_dsn: str
) -> None:
    nats = NatsServer(tmp_path / "nats")
    url = await nats.start()
    asked = f"127.0.0.1:{free_port()}"
    superlink = make_superlink(tmp_path, url, pg_dsn, "--health-server-address", asked)
    gateway = make_gateway(tmp_path, url)
    try:
        await gateway.process.start()
        await until(lambda: get(gateway.health, "/livez") == (200, "ok"))
        await until(lambda: gateway.ready() == (503, "lacks streams, superlink"))
        await superlink.process.start()
        await until(lambda: superlink.ready() == gateway.ready() == (200, "ok"))
        await until(lambda: grpc_health(gateway.address) == grpc_health(asked) == SERVING)

        await nats.stop()

        await until(lambda: "broker" in superlink.ready()[1] and "broker" in gateway.ready()[1])
        await until(lambda: grpc_health(gateway.address) == grpc_health(asked) == NOT_SERVING)
        assert get(gateway.health, "/livez") == get(superlink.health, "/livez") == (200, "ok")
    finally:
        await gateway.process.stop()
        await superlink.process.stop()
        await nats.stop()


async def test_neither_is_ready_while_the_majority_of_nats_is_gone(
    tmp_path: Path, pg_dsn: str
) -> None:
    cluster = NatsCluster(tmp_path)
    urls = ",".join(await cluster.start())
    superlink, gateway = make_superlink(tmp_path, urls, pg_dsn), make_gateway(tmp_path, urls)
    try:
        await superlink.process.start()
        await gateway.process.start()
        await until(lambda: superlink.ready() == gateway.ready() == (200, "ok"))

        await asyncio.gather(*(member.stop() for member in cluster.members[1:]))

        # Both are connected to the last NATS server.
        await until(lambda: superlink.ready() == gateway.ready() == (503, "lacks streams"))
        await cluster.members[1].start()
        await until(lambda: superlink.ready() == gateway.ready() == (200, "ok"))
    finally:
        await gateway.process.stop()
        await superlink.process.stop()
        await cluster.stop()


@pytest.mark.parametrize("kind", ["superlink", "gateway"])
async def test_it_is_unready_first_and_leaves(
    tmp_path: Path, nats_url: str, pg_dsn: str, kind: str
) -> None:
    superlink = make_superlink(tmp_path, nats_url, pg_dsn, "--drain-delay", "3")
    gateway = make_gateway(tmp_path, nats_url, "--drain-delay", "3")
    replica = {"superlink": superlink, "gateway": gateway}[kind]
    try:
        await superlink.process.start()
        await gateway.process.start()
        await until(lambda: superlink.ready() == gateway.ready() == (200, "ok"))

        os.kill(replica.process.pid, signal.SIGTERM)

        await until(lambda: replica.ready() == (503, "lacks leaving"))
        if kind == "gateway":
            assert grpc_health(gateway.address) == NOT_SERVING
        async with asyncio.timeout(PATIENCE):
            assert await replica.process.wait() == 0
    finally:
        await gateway.process.stop()
        await superlink.process.stop()


@pytest.mark.parametrize("kind", ["superlink", "gateway"])
async def test_it_ends_when_told_to_while_the_broker_is_away(
    tmp_path: Path, pg_dsn: str, kind: str
) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"
    replica = make_superlink(tmp_path, nowhere, pg_dsn)
    if kind == "gateway":
        replica = make_gateway(tmp_path, nowhere)
    await replica.process.start()
    log = tmp_path / f"{kind}.log"
    await until(lambda: "broker_away" in log.read_text())

    os.kill(replica.process.pid, signal.SIGTERM)

    async with asyncio.timeout(PATIENCE):
        assert await replica.process.wait() == 0


async def test_an_end_in_order_is_no_warning(tmp_path: Path, nats_url: str, pg_dsn: str) -> None:
    superlink = make_superlink(tmp_path, nats_url, pg_dsn)
    gateway = make_gateway(tmp_path, nats_url)
    await superlink.process.start()
    await gateway.process.start()
    await until(lambda: superlink.ready() == gateway.ready() == (200, "ok"))
    await gateway.process.stop(10)
    await superlink.process.stop(10)

    logs = (tmp_path / "gateway.log").read_text() + (tmp_path / "superlink.log").read_text()

    assert "broker_disconnected" not in logs
    assert '"event": "durability"' in logs and "not_synced" not in logs
    assert '"synchronous_standbys": 0' in logs


@pytest.mark.parametrize("kind", ["superlink", "gateway"])
async def test_it_ends_with_an_error_when_the_broker_refuses_it_for_good(
    tmp_path: Path, pg_dsn: str, kind: str
) -> None:
    nats = NatsServer(tmp_path / "nats")
    url = await nats.start()
    superlink, gateway = make_superlink(tmp_path, url, pg_dsn), make_gateway(tmp_path, url)
    replica = {"superlink": superlink, "gateway": gateway}[kind]
    try:
        await superlink.process.start()
        await gateway.process.start()
        await until(lambda: superlink.ready() == gateway.ready() == (200, "ok"))
        config = tmp_path / "nats" / "nats.conf"
        password = (tmp_path / "nats" / "password").read_text()
        config.write_text(config.read_text().replace(password, "another"))
        os.kill(nats.pid, signal.SIGHUP)

        async with asyncio.timeout(PATIENCE):
            assert await replica.process.wait() != 0
    finally:
        await gateway.process.stop()
        await superlink.process.stop()
        await nats.stop()


@dataclass
class Plain:
    """A nats-server with an operator's own configuration."""

    process: OwnedProcess
    url: str


def make_nats(folder: Path, more: str = "") -> Plain:
    port = free_port()
    config = f"port: {port}, jetstream: {{store_dir: '{folder}/js', sync_interval: '2m'}}, {more}"
    (folder / "nats.conf").write_text(config)
    command = [find_nats_server(), "-c", str(folder / "nats.conf")]
    process = OwnedProcess(ProcessSpec("nats", command, log=folder / "nats.log"))
    return Plain(process, f"nats://127.0.0.1:{port}")


SETTINGS = "$SYS.REQ.SERVER.PING.VARZ"
MAY_ASK = f"""
accounts: {{
  A: {{ jetstream: enabled, users: [{{user: a, password: a}}],
       imports: [{{service: {{account: SYS, subject: "{SETTINGS}"}}}}] }}
  SYS: {{ exports: [{{service: "{SETTINGS}", response_type: Stream}}] }}
}}
no_auth_user: a
system_account: SYS
"""


@pytest.mark.parametrize(
    ("config", "sync", "warning"),
    [(MAY_ASK, "120 s", "broker_not_synced"), ("", "unknown", "broker_sync_unknown")],
)
async def test_a_server_that_does_not_sync_or_does_not_say_is_told_loudly(
    tmp_path: Path, pg_dsn: str, config: str, sync: str, warning: str
) -> None:
    nats = make_nats(tmp_path, config)
    superlink = make_superlink(tmp_path, nats.url, pg_dsn)
    try:
        await nats.process.start()
        await superlink.process.start()
        await until(lambda: superlink.ready() == (200, "ok"))
        metrics = await scrape(superlink)
    finally:
        await superlink.process.stop()
        await nats.process.stop()

    assert warning in (tmp_path / "superlink.log").read_text()
    assert metrics["flower_nats_acknowledged_is_on_disk"] == 0
    [promise] = [name for name in metrics if name.startswith("flower_nats_durability{")]
    assert f'broker_sync="{sync}"' in promise


async def scrape(replica: Replica) -> dict[str, float]:
    """Return every sample of /metrics, by its name and labels."""
    status, text = await asyncio.to_thread(get, replica.health, "/metrics")
    assert status == 200
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    parts = [re.fullmatch(r"([a-z_]+(?:\{[^}]*\})?) (\d+(?:\.\d+)?)", line) for line in samples]
    assert all(parts), text
    return {part[1]: float(part[2]) for part in parts if part}


async def test_metrics_tell_of_nodes_runs_held_calls_and_of_what_is_on_disk(
    tmp_path: Path, nats_url: str, pg_dsn: str
) -> None:
    superlink = make_superlink(tmp_path, nats_url, pg_dsn)
    gateway = make_gateway(tmp_path, nats_url)
    try:
        await superlink.process.start()
        await gateway.process.start()
        await until(lambda: superlink.ready() == gateway.ready() == (200, "ok"))
        node = StockNode(1, Wire(gateway.address))
        await node.join()

        async with asyncio.timeout(PATIENCE):
            while (await scrape(gateway))["flower_nats_held_calls"] != 1:
                await asyncio.sleep(0.05)
        of_gateway, of_superlink = await scrape(gateway), await scrape(superlink)
        await node.kill()
    finally:
        await gateway.process.stop()
        await superlink.process.stop()

    assert of_gateway["flower_nats_ready"] == 1
    assert of_gateway['flower_nats_dependency_ready{dependency="superlink"}'] == 1
    assert of_superlink["flower_nats_report_complete"] == 1
    assert of_superlink['flower_nats_nodes{status="online"}'] == 1
    assert of_superlink['flower_nats_runs{status="running"}'] == 0
    assert of_superlink['flower_nats_replicas{kind="gateway"}'] == 1
    assert of_superlink["flower_nats_acknowledged_is_on_disk"] == 1
    assert of_superlink['flower_nats_broker_syncs_always{server="flower-nats-embedded"}'] == 1
    assert of_superlink["flower_nats_database_standbys"] == 0
    assert of_superlink["flower_nats_database_synchronous_standbys"] == 0


async def test_metrics_are_there_while_the_database_is_not(tmp_path: Path, nats_url: str) -> None:
    postgres = PostgresServer(tmp_path / "pg")
    superlink = make_superlink(tmp_path, nats_url, await postgres.start())
    try:
        await superlink.process.start()
        await until(lambda: superlink.ready() == (200, "ok"))
        await postgres.stop()

        metrics = await scrape(superlink)
        assert metrics["flower_nats_report_complete"] == 0
        assert "flower_nats_acknowledged_is_on_disk" not in metrics
        shown = await status("--nats", nats_url)
        assert shown.returncode == 1
        assert "NOT HEALTHY: the database does not answer" in shown.stdout
        assert "broker       healthy" in shown.stdout
        assert "Remedy: check that PostgreSQL runs" in shown.stdout
    finally:
        await superlink.process.stop()
        await postgres.stop()


async def test_it_answers_three_pages_and_get_only() -> None:
    async def collect() -> list[Metric]:
        return [gauge("things", "Things.", 2.5, kind='a "b"\\')]

    server = HealthServer(Readiness({"broker": lambda: False}), collect)
    address = await server.start("127.0.0.1:0")
    try:
        answers = {
            path: await asyncio.to_thread(get, address, path)
            for path in ("/livez", "/readyz?verbose", "/", "/livez/more", "/metrics")
        }
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"POST /livez HTTP/1.1\r\n\r\n")
        refused = await reader.read()
        writer.close()
    finally:
        await server.stop()

    metrics = answers.pop("/metrics")
    assert metrics[0] == 200
    assert metrics[1].splitlines()[-3:] == [
        "# HELP flower_nats_things Things.",
        "# TYPE flower_nats_things gauge",
        'flower_nats_things{kind="a \\"b\\"\\\\"} 2.5',
    ]
    assert 'flower_nats_dependency_ready{dependency="broker"} 0' in metrics[1].splitlines()
    assert answers == {
        "/livez": (200, "ok"),
        "/readyz?verbose": (503, "lacks broker"),
        "/": (404, "not found"),
        "/livez/more": (404, "not found"),
    }
    assert refused.startswith(b"HTTP/1.1 405 ")


async def test_a_client_that_says_too_much_is_dropped() -> None:
    server = HealthServer(Readiness({}))
    address = await server.start("127.0.0.1:0")
    try:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"GET /livez HTTP/1.1\r\n" + b"x" * 100_000)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
        assert await asyncio.to_thread(get, address, "/livez") == (200, "ok")
    finally:
        await server.stop()


async def test_an_address_that_is_taken_is_said() -> None:
    first = HealthServer(Readiness({}))
    address = await first.start("127.0.0.1:0")
    try:
        with pytest.raises(CannotListen, match=address):
            await HealthServer(Readiness({})).start(address)
    finally:
        await first.stop()
