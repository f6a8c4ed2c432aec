"""Limits: runs above the limit wait for their turn, and a run that takes too long ends."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner

from flower_nats.model.errors import ErrorCode
from flower_nats.model.quota import Quota
from flower_nats.store.quotas import Quotas
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats_cli.audit import audit
from flower_nats_cli.quota import quota
from flower_nats_cli.role import role
from harness.children import PATIENCE
from tests.integration.people import Person
from tests.integration.superlinks import Superlink, refused, running_superlink

LAB = "@ana/lab"


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        yield superlink


@pytest.fixture
async def ana(superlink: Superlink) -> Person:
    ana = await Person.come(superlink, "ana")
    await ana.create("lab")
    return ana


async def limit(superlink: Superlink, kind: str, name: str, **change: Any) -> None:
    await superlink.command("SetQuota", kind=kind, name=name, change=change)


async def acquire(superlink: Superlink) -> int | None:
    """Claim a task like a SuperExec; return its run."""
    answer = await superlink.call(
        "Runtime",
        "AcquireTask",
        runtime.AcquireTaskRequest(supported_task_types=["flwr-serverapp"]),
        runtime.AcquireTaskResponse,
    )
    return answer.task.run_id if answer.HasField("task") else None


async def pending(superlink: Superlink) -> list[int]:
    answer = await superlink.call(
        "Runtime",
        "PullPendingTasks",
        runtime.PullPendingTasksRequest(),
        runtime.PullPendingTasksResponse,
    )
    return [task.run_id for task in answer.tasks]


async def run_command(command: Any, *arguments: str) -> tuple[int, str]:
    result = await asyncio.to_thread(CliRunner().invoke, command, list(arguments))
    return result.exit_code, result.output


async def test_more_runs_than_a_federation_may_have_wait_for_their_turn(
    superlink: Superlink, ana: Person
) -> None:
    ben = await Person.come(superlink, "ben")
    other = await ben.create("other")
    await limit(superlink, "federation", LAB, runs_at_once=2)
    runs = [await ana.start_run(LAB) for _ in range(4)]
    elsewhere = await ben.start_run(other)

    assert await pending(superlink) == [*runs[:2], elsewhere]
    begun = [await acquire(superlink) for _ in range(4)]

    assert begun == [*runs[:2], elsewhere, None]
    await ana.call("StopRun", run_id=runs[1])
    assert await acquire(superlink) == runs[2]
    assert await acquire(superlink) is None
    await limit(superlink, "federation", LAB, runs_at_once=None)
    assert await acquire(superlink) == runs[3]


async def test_who_waits_for_the_account_keeps_nobody_else_waiting(
    superlink: Superlink, ana: Person
) -> None:
    ben = await Person.come(superlink, "ben")
    await ana.invite(ben, LAB)
    await limit(superlink, "federation", "*", runs_at_once=2)
    await limit(superlink, "account", "*", runs_at_once=1)
    first, second = await ana.start_run(LAB), await ana.start_run(LAB)
    of_ben = await ben.start_run(LAB)

    assert [await acquire(superlink) for _ in range(3)] == [first, of_ben, None]

    await limit(superlink, "account", "Ana", runs_at_once=5)
    assert await acquire(superlink) is None
    await ana.call("StopRun", run_id=first)
    assert await acquire(superlink) == second


async def test_a_run_that_takes_too_long_ends_with_the_reason(
    superlink: Superlink, ana: Person
) -> None:
    run_id = await ana.start_run(LAB)
    task = await superlink.claim(run_id)
    await task.pull_input()
    await limit(superlink, "federation", LAB, run_seconds=3600.0)
    await superlink.database.execute("UPDATE task SET running_at = now() - interval '2 hours'")

    async with asyncio.timeout(PATIENCE):
        while (await superlink.status(run_id))[0] != "finished":
            await asyncio.sleep(0.1)

    _, sub_status, details = await superlink.status(run_id)
    assert sub_status == "failed"
    assert "longer than 3600 seconds, the limit of the federation @ana/lab" in details


async def test_a_limit_that_no_clock_can_reach_leaves_other_limits_alone(
    superlink: Superlink, ana: Person
) -> None:
    """Earlier versions accepted such limits, so they may be in a database."""
    ben = await Person.come(superlink, "ben")
    endless = await ben.start_run(await ben.create("other"))
    run_id = await ana.start_run(LAB)
    for one in (endless, run_id):
        await (await superlink.claim(one)).pull_input()
    for name, seconds in (("ben", 9_999_999 * 86_400.0), ("nobody", math.inf), ("x", math.nan)):
        await Quotas(superlink.database).set(Quota("account", name, run_seconds=seconds))
    await limit(superlink, "federation", LAB, run_seconds=3600.0)
    await superlink.database.execute("UPDATE task SET running_at = now() - interval '2 hours'")

    async with asyncio.timeout(PATIENCE):
        while (await superlink.status(run_id))[0] != "finished":
            await asyncio.sleep(0.1)

    assert (await superlink.status(endless))[0] == "running"


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"run_seconds": 9_999_999 * 86_400.0}, "at most 3650 days"),
        ({"run_seconds": 3_650 * 86_400.0 + 1}, "at most 3650 days"),
        ({"run_seconds": math.inf}, "at most 3650 days"),
        ({"run_seconds": math.nan}, "at most 3650 days"),
        ({"run_seconds": 0.0}, "at most 3650 days"),
        ({"run_seconds": -1.0}, "at most 3650 days"),
        ({"runs_at_once": 1_000_001}, "from 0 to 1000000"),
        ({"runs_at_once": 2**63}, "from 0 to 1000000"),
        ({"runs_at_once": -1}, "from 0 to 1000000"),
    ],
)
async def test_a_limit_that_cannot_be_kept_is_refused(
    superlink: Superlink, change: dict[str, Any], remedy: str
) -> None:
    with refused(ErrorCode.MALFORMED_REQUEST, remedy):
        await limit(superlink, "federation", "*", **change)
    assert (await superlink.command("Quotas"))["quotas"] == []


async def test_an_operator_sets_and_sees_limits_and_roles(
    superlink: Superlink, ana: Person, nats_url: str
) -> None:
    ben = await Person.come(superlink, "ben")
    await ana.invite(ben, LAB)
    nats = ("--nats", nats_url)
    await ana.start_run(LAB)

    limits = ("--runs", "3", "--run-time", "2h", *nats)
    code, said = await run_command(quota, "set", "federation", LAB, *limits)
    await run_command(quota, "set", "federation", LAB, "--runs", "1", *nats)
    await run_command(quota, "set", "account", "*", "--runs", "none", *nats)
    _, listed = await run_command(quota, "list", *nats)

    assert code == 0, said
    lines = [line.split() for line in listed.splitlines()]
    assert ["federation", LAB, "1", "2", "h", "0", "1"] in lines
    assert ["account", "ana", "-", "-", "0", "1"] in lines
    for arguments in (("federation", "@no/one", "--runs", "1"), ("account", "ana")):
        assert (await run_command(quota, "set", *arguments, *nats))[0] != 0
    for wrong, remedy in (
        (("--run-time", "soon"), "7d"),
        (("--run-time", "0s"), "above zero"),
        (("--run-time", "9999999d"), "at most 3650 days"),
        (("--run-time", f"{'9' * 5_000}d"), "7d"),
        (("--runs", "1000001"), "from 0 to 1000000"),
        (("--runs", "9" * 5_000), "not a number of runs"),
    ):
        code, said = await run_command(quota, "set", "account", "ana", *wrong, *nats)
        assert code == 2, said
        assert remedy in said

    assert (await run_command(role, LAB, "ben", "viewer", *nats))[0] == 0
    with refused(ErrorCode.NO_PERMISSIONS, "viewer"):
        await ben.start_run(LAB)
    assert (await run_command(role, LAB, "ana", "member", *nats))[0] == 1
    assert (await run_command(role, LAB, "ben", "owner", *nats))[0] == 0
    roles = {one.account.name: one.role for one in (await ana.show(LAB)).members}
    assert roles == {"ana": "admin", "ben": "owner"}

    _, trail = await run_command(audit, "--action", "SetQuota", "--json", *nats)
    assert [json.loads(line)["object"] for line in trail.splitlines()] == [
        f"federation {LAB}, runs_at_once 3, run_seconds 7200",
        f"federation {LAB}, runs_at_once 1",
        "account *, runs_at_once none",
        "federation @no/one, runs_at_once 1",
    ]
