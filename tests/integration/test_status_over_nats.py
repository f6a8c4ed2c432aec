"""`flower-nats status --nats`, for superlinks and gateways that run elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from flower_nats.broker.urls import without_login
from flower_nats.wire import control_pb2 as control
from harness.environment import SCRIPTS, clean_environment, free_port
from tests.integration.superlinks import Superlink, running_superlink, superexec_heard


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def status(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command like an operator, while a superlink runs in this process."""
    return await asyncio.to_thread(
        subprocess.run,
        [str(SCRIPTS / "flower-nats"), "status", *flags],
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=30,
    )


async def test_it_shows_replicas_and_what_is_durable(superlink: Superlink, nats_url: str) -> None:
    await superlink.announce_gateway(superexec_heard())

    done = await status("--nats", nats_url, "--format", "json")

    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["healthy"] is True
    assert report["nats"] == [without_login(nats_url)]
    assert report["broker"]["healthy"] is report["database"]["healthy"] is True
    assert sorted(one["kind"] for one in report["replicas"]) == ["gateway", "superlink"]
    assert report["durability"]["broker"]["sync"] == "always"
    assert report["durability"]["database"]["synced"] is True


async def test_it_is_readable_and_says_nothing_of_processes(
    superlink: Superlink, nats_url: str
) -> None:
    await superlink.announce_gateway(superexec_heard())

    done = await status(FLOWER_NATS_STATUS_NATS=nats_url)

    assert done.returncode == 0
    assert done.stdout.startswith(f"flower-nats on {without_login(nats_url)} is healthy\n")
    for word in ("broker", "database", "runs", "nodes", "replica", "synced to disk before it is"):
        assert word in done.stdout
    for word in ("processes", "None", str(urlsplit(nats_url).password)):
        assert word not in done.stdout


async def test_one_variable_says_for_all_commands_which_runtime_is_meant(
    superlink: Superlink, nats_url: str
) -> None:
    nobody = f"nats://127.0.0.1:{free_port()}"

    done = await status(FLOWER_NATS_OPERATOR_NATS=nats_url)
    own = await status(FLOWER_NATS_OPERATOR_NATS=nobody, FLOWER_NATS_STATUS_NATS=nats_url)

    for one in (done, own):
        assert one.stdout.startswith(f"flower-nats on {without_login(nats_url)} is "), one


@pytest.mark.parametrize("more", [[], ["--format", "json"]])
async def test_a_nats_that_does_not_answer_is_told_with_a_remedy(more: list[str]) -> None:
    address = f"127.0.0.1:{free_port()}"

    done = await status("--nats", f"nats://user:hush@{address}", *more)

    assert done.returncode == 1
    assert address in done.stdout
    assert "no NATS server answers" in done.stdout
    assert "Remedy: " in done.stdout
    assert "--nats" in done.stdout
    assert "hush" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


async def test_a_login_that_nats_refuses_is_told_with_a_remedy(nats_url: str) -> None:
    done = await status("--nats", f"nats://user:hush@{urlsplit(nats_url).netloc.split('@')[1]}")

    assert done.returncode == 1
    assert "Authorization Violation" in done.stdout
    assert "password" in done.stdout
    assert "hush" not in done.stdout + done.stderr


async def test_a_nats_without_a_superlink_is_told_with_a_remedy(nats_url: str) -> None:
    done = await status("--nats", nats_url)

    assert done.returncode == 1
    assert "broker       healthy" in done.stdout
    assert "database     not heard of" in done.stdout
    assert "no superlink answers" in done.stdout
    assert "Remedy: " in done.stdout


async def test_without_a_superexec_it_is_not_healthy_and_says_so(
    superlink: Superlink, nats_url: str
) -> None:
    await superlink.announce_gateway()

    done = await status("--nats", nats_url)

    assert done.returncode == 1
    assert "NOT HEALTHY: no SuperExec is connected: runs stay pending. Remedy: " in done.stdout


async def test_a_superexec_that_is_refused_is_named_with_the_remedy(
    superlink: Superlink, nats_url: str
) -> None:
    refused = superexec_heard(refused="the SuperExec does not know the secret")
    await superlink.announce_gateway(refused)

    done = await status("--nats", nats_url)

    assert done.returncode == 1
    assert "the SuperExec at 10.0.0.5 is refused" in done.stdout
    assert "--superexec-auth-secret-file" in done.stdout
    assert "IS REFUSED: the SuperExec does not know the secret" in done.stdout

    await superlink.announce_gateway(refused, superexec_heard(address="10.0.0.6"))
    assert (await status("--nats", nats_url)).returncode == 0


async def test_superexecs_and_nodes_are_shown_with_what_they_do(
    superlink: Superlink, nats_url: str
) -> None:
    await superlink.announce_gateway(superexec_heard())
    run = await superlink.start_run()
    await superlink.claim(run.run_id, address="10.0.0.5")
    node = await superlink.online_node(address="10.0.0.7", client_version="1.41.0")

    shown = (await status("--nats", nats_url)).stdout
    report = json.loads((await status("--nats", nats_url, "--format", "json")).stdout)

    [superexec] = report["superexecs"]
    assert superexec["tasks"][0]["run_id"] == str(run.run_id)
    assert f"ServerApp of run {run.run_id} (starting for " in shown
    [listed] = report["nodes_listed"]
    assert (listed["node_id"], listed["flwr"]) == (str(node.node_id), "1.41.0")
    assert re.search(rf"{node.node_id} +- +1\.41\.0 +10\.0\.0\.7 +online +\d+ s ago", shown)


async def test_runs_are_counted_by_how_they_have_ended(superlink: Superlink, nats_url: str) -> None:
    await superlink.announce_gateway(superexec_heard())
    await superlink.running_task()
    await superlink.command("EndRuns", reason="tested")
    stopped = await superlink.start_run()
    await superlink.call(
        "Control",
        "StopRun",
        control.StopRunRequest(run_id=stopped.run_id),
        control.StopRunResponse,
    )

    assert "  runs         failed 1, stopped 1\n" in (await status("--nats", nats_url)).stdout


async def test_what_others_reach_is_told(superlink: Superlink, nats_url: str) -> None:
    exposed = {"control": ["0.0.0.0:9093"], "unencrypted": ["0.0.0.0:9093"], "open": []}
    await superlink.announce_gateway(superexec_heard(), exposure=exposed)

    shown = (await status("--nats", nats_url)).stdout

    assert "Anyone who reaches Control (0.0.0.0:9093) can run any Python on the server" in shown
    assert "Traffic is not encrypted (0.0.0.0:9093)" in shown
    assert "Anybody may add" not in shown


async def test_a_run_that_nobody_takes_waits_for_a_superexec(
    superlink: Superlink, nats_url: str
) -> None:
    run = await superlink.start_run()

    done = await status("--nats", nats_url, "--run", str(run.run_id))

    assert done.returncode == 0
    assert "is pending, for " in done.stdout
    assert "It waits for a SuperExec" in done.stdout


async def test_an_unknown_run_is_an_error(superlink: Superlink, nats_url: str) -> None:
    done = await status("--nats", nats_url, "--run", "12345")

    assert done.returncode == 1
    assert "there is no run 12345" in done.stderr
