"""Tasks of one run that create, message and watch each other."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from flwr.supercore.corestate.utils import validate_task_event_data
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.model.errors import ErrorCode
from flower_nats.superlink.api.runtime_tasks import _is_json_object
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from tests.integration.superlinks import Superlink, Task, refused, running_superlink


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


@pytest.fixture
async def task(superlink: Superlink) -> Task:
    """The running ServerApp of a run."""
    return await superlink.running_task()


async def create(task: Task, **fields: Any) -> int:
    request_id = fields.pop("request_id", uuid.uuid4().hex)
    fields = {"type": "flwr-model", "model_ref": "some/model", **fields}
    answer = await task.call(
        "CreateTask", runtime.CreateTaskRequest(**fields), runtime.CreateTaskResponse,
        request_id=request_id,
    )  # fmt: skip
    return answer.task_id


def message(src: Task, dst: int, **changes: object) -> common.Message:
    metadata = common.Metadata(
        run_id=src.run_id,
        message_id=uuid.uuid4().hex,
        src_node_id=1,
        dst_node_id=1,
        src_task_id=src.task_id,
        dst_task_id=dst,
        created_at=time.time(),
        ttl=60,
        message_type="system",
    )
    metadata.MergeFrom(common.Metadata(**changes))  # type: ignore[arg-type]
    return common.Message(metadata=metadata, content=b"content")


async def send(src: Task, sent: common.Message) -> str:
    request = runtime.PushTaskMessageRequest(message=sent)
    answer = await src.call("PushTaskMessage", request, runtime.PushTaskMessageResponse)
    return answer.message_id


async def receive(task: Task, **fields: int) -> list[common.Message]:
    request = runtime.PullTaskMessageRequest(**fields)
    answer = await task.call("PullTaskMessage", request, runtime.PullTaskMessageResponse)
    return list(answer.messages)


async def helper(superlink: Superlink, task: Task) -> Task:
    """A claimed task that `task` has created."""
    await create(task)
    return await superlink.claim(task.run_id)


async def test_a_task_creates_another_that_waits_for_a_superexec(
    superlink: Superlink, task: Task
) -> None:
    created = await create(task, request_id="one call")
    again = await create(task, request_id="one call")

    assert created == again
    claimed = await superlink.claim(task.run_id)
    assert (claimed.task_id, claimed.task_type) == (created, "flwr-model")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"type": "flwr-nonsense"}, "Invalid task type"),
        ({"type": "flwr-model", "model_ref": ""}, "requires model_ref"),
        ({"type": "flwr-agentapp"}, "requires fab_hash"),
        ({"type": "flwr-connector"}, "requires connector_ref"),
    ],
)
async def test_a_task_that_could_not_start_is_not_created(
    task: Task, fields: dict[str, str], said: str
) -> None:
    with refused(ErrorCode.INVALID_TASK_CREATION_REQUEST, said):
        await create(task, **fields)


async def test_not_every_task_may_create_others(superlink: Superlink, task: Task) -> None:
    model = await helper(superlink, task)
    model.task_type = "flwr-serverapp"

    with refused(ErrorCode.TASK_CREATION_NOT_ALLOWED, "flwr-model"):
        await create(model)


async def test_a_task_is_the_one_of_its_token_whatever_a_gateway_says(
    superlink: Superlink, task: Task
) -> None:
    other = await superlink.running_task()
    forged = replace(other, token=task.token)

    created = await create(forged)

    pending = await superlink.claim(task.run_id)
    assert pending.task_id == created
    with refused(ErrorCode.AUTHENTICATION_FAILED):
        await create(replace(task, token="guess"))


async def test_a_finished_task_creates_nothing(superlink: Superlink, task: Task) -> None:
    await task.push_output()

    with refused(ErrorCode.AUTHENTICATION_FAILED):
        await create(task)


async def test_all_tasks_finish_with_the_one_that_leads_the_run(
    superlink: Superlink, task: Task
) -> None:
    other = await helper(superlink, task)
    await other.pull_input()

    await task.push_output()

    assert not await other.heartbeat()
    [row] = await superlink.database.fetch_all(
        "SELECT status, sub_status, details FROM task WHERE task_id = %(id)s", id=other.task_id
    )
    assert row["details"] == "Task failed because the run finished"
    assert (row["status"], row["sub_status"]) == ("finished", "failed")


async def test_another_task_finishes_alone(superlink: Superlink, task: Task) -> None:
    other = await helper(superlink, task)
    await other.pull_input()

    await other.push_output(context=b"not the run's")

    assert (await superlink.status(task.run_id))[0] == "running"
    assert await task.heartbeat()


async def test_messages_between_tasks_arrive_in_order_and_once(
    superlink: Superlink, task: Task
) -> None:
    other = await helper(superlink, task)
    sent = [message(task, other.task_id) for _ in range(3)]
    for one in sent:
        assert await send(task, one) == one.metadata.message_id
    await send(task, sent[0])

    assert await receive(other, limit=2) == sent[:2]
    assert await receive(other) == sent[2:]
    assert await receive(other) == []
    assert await receive(task) == []


async def test_a_task_may_take_the_messages_of_one_sender_alone(
    superlink: Superlink, task: Task
) -> None:
    first, second = await helper(superlink, task), await helper(superlink, task)
    from_first, from_second = message(first, task.task_id), message(second, task.task_id)
    await send(first, from_first)
    await send(second, from_second)

    assert await receive(task, src_task_id=second.task_id) == [from_second]
    assert await receive(task, src_task_id=second.task_id) == []
    assert await receive(task) == [from_first]


async def test_a_message_that_fits_nobody_is_refused(superlink: Superlink, task: Task) -> None:
    other, stranger = await helper(superlink, task), await superlink.running_task()
    to = other.task_id
    without_content = message(task, to)
    without_content.ClearField("content")

    for wrong in (
        message(task, to, src_task_id=other.task_id),
        message(task, to, run_id=stranger.run_id),
        message(task, stranger.task_id),
        message(task, 5),
        message(task, task.task_id),
        message(task, to, dst_node_id=7),
        message(task, to, ttl=-1.0),
        message(task, to, ttl=float("nan")),
        message(task, to, created_at=5.0),
        without_content,
    ):
        with refused(ErrorCode.INVALID_TASK_MESSAGE):
            await send(task, wrong)
    assert await receive(other) == []


async def test_events_are_read_in_order_from_where_one_was(
    superlink: Superlink, task: Task
) -> None:
    async def push(*names: str, data: str = "{}") -> None:
        events = [common.TaskEvent(event=name, data=data) for name in names]
        request = runtime.PushTaskEventsRequest(events=events)
        await task.call("PushTaskEvents", request, runtime.PushTaskEventsResponse)

    async def read(after: int) -> tuple[list[common.TaskEvent], bool]:
        answer = await superlink.ask("TaskEvents", run_id=task.run_id, after=after)
        return [common.TaskEvent.FromString(one) for one in answer["events"]], answer["finished"]

    await push("a", "b")
    await asyncio.gather(*(push(f"c{n}", f"d{n}") for n in range(8)))
    await push("lost", data="[1, 2]")
    await push()

    events, finished = await read(0)
    names = [event.event for event in events]
    assert names[:2] == ["a", "b"]
    assert [name[1:] for name in names[2::2]] == [name[1:] for name in names[3::2]]
    assert len(names) == 18
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert {(event.run_id, event.task_id) for event in events} == {(task.run_id, task.task_id)}
    assert not finished

    await task.push_output()
    rest, finished = await read(events[-2].id)
    assert ([event.id for event in rest], finished) == ([events[-1].id], True)


async def test_usage_is_recorded_once_however_often_a_gateway_asks(
    superlink: Superlink, task: Task
) -> None:
    usage = common.TaskUsage(usage_type="model", input_tokens=5, provider="somebody")
    request = runtime.RecordTaskUsageRequest(task_usage=usage)
    for _ in range(2):
        await task.call(
            "RecordTaskUsage", request, runtime.RecordTaskUsageResponse, request_id="one call"
        )

    [row] = await superlink.database.fetch_all("SELECT * FROM task_usage")

    assert (row["task_id"], row["run_id"]) == (task.task_id, task.run_id)
    assert common.TaskUsage.FromString(row["body"]) == usage


async def test_automations_and_connectors_are_refused(task: Task) -> None:
    with refused(ErrorCode.INVALID_AUTOMATION_REQUEST, "automations"):
        await task.call(
            "StartAutomation", control.StartAutomationRequest(), control.StartAutomationResponse
        )
    with refused(ErrorCode.CONNECTOR_CREDENTIALS_NOT_AVAILABLE):
        await task.call("GetConnector", runtime.GetConnectorRequest(), runtime.GetConnectorResponse)


@given(st.one_of(st.text('{}[]":,a1 ', max_size=12), st.just("[" * 10_000), st.just('{"a": NaN}')))
def test_what_is_not_a_json_object_is_no_event(data: str) -> None:
    try:
        validate_task_event_data(data)
    except (ValueError, RecursionError):
        assert not _is_json_object(data)
    else:
        assert _is_json_object(data)
