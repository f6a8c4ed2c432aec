"""SuperExecs of every version get their tasks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from flower_nats.wire import runtime_pb2 as runtime
from tests.integration.superlinks import Superlink, Task, running_superlink

EVERYTHING = (
    "flwr-agentapp", "flwr-clientapp", "flwr-connector", "flwr-model", "flwr-serverapp",
    "flwr-simulation",
)  # fmt: skip


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def acquire(
    superlink: Superlink,
    types: tuple[str, ...] = (),
    fab_hashes: tuple[str, ...] = (),
    request_id: str = "",
) -> runtime.AcquireTaskResponse:
    return await superlink.call(
        "Runtime",
        "AcquireTask",
        runtime.AcquireTaskRequest(supported_task_types=types, agentapp_fab_hashes=fab_hashes),
        runtime.AcquireTaskResponse,
        request_id=request_id or uuid.uuid4().hex,
    )


async def create(task: Task, **fields: str) -> int:
    answer = await task.call(
        "CreateTask",
        runtime.CreateTaskRequest(**fields),  # type: ignore[arg-type]
        runtime.CreateTaskResponse,
    )
    return answer.task_id


async def test_a_superexec_acquires_the_oldest_task_that_it_has_room_for(
    superlink: Superlink,
) -> None:
    first, second = await superlink.start_run(), await superlink.start_run()

    assert (await acquire(superlink, ("flwr-model",))) == runtime.AcquireTaskResponse()
    assert (await acquire(superlink)) == runtime.AcquireTaskResponse()
    acquired = [await acquire(superlink, EVERYTHING) for _ in range(3)]

    assert [one.task.run_id for one in acquired] == [first.run_id, second.run_id, 0]
    given = acquired[0]
    assert (given.task.type, given.task.status.status) == ("flwr-serverapp", "starting")
    assert len(given.token) == 256
    task = Task(superlink, given.task.task_id, first.run_id, given.task.type, given.token)
    assert (await task.pull_input()).run.run_id == first.run_id


async def test_a_task_is_acquired_by_its_fab_as_well_as_by_its_type(superlink: Superlink) -> None:
    task = await superlink.running_task()
    agent = await create(task, type="flwr-agentapp", fab_hash="ab" * 32)
    await create(task, type="flwr-agentapp", fab_hash="cd" * 32)

    acquired = await acquire(superlink, ("flwr-model",), ("ab" * 32,))

    assert acquired.task.task_id == agent
    assert not (await acquire(superlink, ("flwr-model",), ("ab" * 32,))).HasField("task")


@pytest.mark.parametrize("runs", [1, 4, 8])
async def test_a_request_acquires_one_task_however_often_a_gateway_asks(
    superlink: Superlink, runs: int
) -> None:
    # At first there is no task: the gateway holds the call and asks again.
    assert not (await acquire(superlink, EVERYTHING, request_id="one call")).HasField("task")
    for _ in range(runs):
        await superlink.start_run()

    answers = await asyncio.gather(
        *(acquire(superlink, EVERYTHING, request_id="one call") for _ in range(6))
    )

    assert len({answer.task.task_id for answer in answers}) == 1
    assert len({answer.token for answer in answers}) == 1
    assert answers[0].token


async def test_no_task_is_acquired_twice(superlink: Superlink) -> None:
    runs = {(await superlink.start_run()).run_id for _ in range(5)}

    answers = await asyncio.gather(*(acquire(superlink, EVERYTHING) for _ in range(8)))

    assert sorted(answer.task.run_id for answer in answers) == [0, 0, 0, *sorted(runs)]
    assert len({answer.token for answer in answers if answer.token}) == 5


@pytest.mark.parametrize(
    ("version", "offered"),
    [
        ("1.30.0", {"flwr-serverapp"}),
        ("1.31.0", {"flwr-serverapp", "flwr-agentapp", "flwr-model"}),
        ("1.32.1", set(EVERYTHING) - {"flwr-clientapp", "flwr-simulation"}),
        ("1.37.0", set(EVERYTHING) - {"flwr-clientapp", "flwr-simulation"}),
        ("1.38.0.dev20260901", set(EVERYTHING) - {"flwr-simulation"}),
        ("", set(EVERYTHING) - {"flwr-simulation"}),
        ("nonsense", set(EVERYTHING) - {"flwr-simulation"}),
    ],
)
async def test_an_older_superexec_is_offered_what_it_can_launch(
    superlink: Superlink, version: str, offered: set[str]
) -> None:
    task = await superlink.running_task()
    await superlink.start_run()
    await create(task, type="flwr-agentapp", fab_hash="ab")
    await create(task, type="flwr-clientapp", fab_hash="ab")
    await create(task, type="flwr-model", model_ref="some/model")
    await create(task, type="flwr-connector", connector_ref="web")

    pending = await superlink.call(
        "Runtime",
        "PullPendingTasks",
        runtime.PullPendingTasksRequest(),
        runtime.PullPendingTasksResponse,
        client_version=version,
    )

    assert {one.type for one in pending.tasks} == offered
