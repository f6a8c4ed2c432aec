"""Values that PostgreSQL does not take: they are refused for good, or the run still ends."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message as ProtoMessage
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import CapturingLogger

from flower_nats.broker import rpc
from flower_nats.broker.connection import Connection
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Outcome, Unavailable
from flower_nats.model.ids import token_hash
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.api import forwarding
from flower_nats_gateway.calls import outcomes
from harness.channels import Refused
from harness.fabs import PROJECT, make_fab
from tests.integration.gateways import running_stack
from tests.integration.superlinks import Node, Superlink, Task, refused, running_superlink
from tests.integration.test_superlink_worker import SERVED_BY_GATEWAYS

_Field = FieldDescriptor

FORWARDED = sorted(set(BY_NAME) - SERVED_BY_GATEWAYS)

LONG = "".join(uuid.uuid4().hex for _ in range(300))
"""More than an index of PostgreSQL holds, and not compressible."""


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


@pytest.fixture
async def task(superlink: Superlink) -> Task:
    return await superlink.running_task()


async def create_model(task: Task, model_ref: str) -> int:
    request = runtime.CreateTaskRequest(type="flwr-model", model_ref=model_ref)
    return (await task.call("CreateTask", request, runtime.CreateTaskResponse)).task_id


async def test_a_run_ends_with_its_reason_whatever_characters_that_holds(
    superlink: Superlink, task: Task
) -> None:
    await task.push_output("failed", details="bad magic b'\x00\x01' in file\x00")

    assert await superlink.status(task.run_id) == (
        "finished",
        "failed",
        "bad magic b'\ufffd\x01' in file\ufffd",
    )


async def test_a_run_ends_whatever_computing_time_it_claims(
    superlink: Superlink, task: Task
) -> None:
    for claimed in (1e308, 1e308, float("inf"), float("nan"), -5.0, 2.5):
        await superlink.ask("Usage", runs=[[task.run_id, 1, 2, claimed]])
    await task.push_output(clientapp_runtime=float("nan"))

    listed = await superlink.call(
        "Control", "ListRuns", control.ListRunsRequest(), control.ListRunsResponse
    )
    assert listed.run_dict[task.run_id].status.sub_status == "completed"
    assert listed.run_dict[task.run_id].clientapp_runtime == 2.5


async def test_an_event_is_told_whatever_characters_its_name_holds(
    superlink: Superlink, task: Task
) -> None:
    event = common.TaskEvent(event="e\x00", data='{"text": "\\u0000"}')
    request = runtime.PushTaskEventsRequest(events=[event])
    await task.call("PushTaskEvents", request, runtime.PushTaskEventsResponse)

    answer = await superlink.ask("TaskEvents", run_id=task.run_id, after=0)

    [told] = [common.TaskEvent.FromString(one) for one in answer["events"]]
    assert (told.event, told.data) == ("e\ufffd", event.data)


async def test_an_app_whose_name_cannot_be_stored_is_refused(superlink: Superlink) -> None:
    for line in ('name = "app"', 'version = "1.2.3"', 'publisher = "somebody"'):
        fab = make_fab(PROJECT.replace(line, line[:-1] + r'\u0000"'))
        request = control.StartRunRequest(fab=common.Fab(content=fab))
        with refused(ErrorCode.INVALID_RUN_CONFIG, line.split(" ", maxsplit=1)[0]):
            await superlink.call("Control", "StartRun", request, control.StartRunResponse)


async def test_what_an_agent_is_asked_may_hold_any_character(superlink: Superlink) -> None:
    project = PROJECT.replace('serverapp = "app', 'agentapp = "app')
    request = control.StartRunRequest(
        fab=common.Fab(content=make_fab(project)), user_prompt="a\x00b"
    )
    await superlink.call("Control", "StartRun", request, control.StartRunResponse)

    listed = await superlink.call(
        "Control", "ListRunSeries", control.ListRunSeriesRequest(), control.ListRunSeriesResponse
    )
    assert [one.description for one in listed.entries] == ["a\ufffdb"]


async def test_a_series_whose_context_cannot_be_read_is_refused(
    superlink: Superlink, task: Task
) -> None:
    await task.push_output(context=b"not a context")
    run = (
        await superlink.call(
            "Control", "ListRuns", control.ListRunsRequest(), control.ListRunsResponse
        )
    ).run_dict[task.run_id]

    with refused(ErrorCode.FAILED_TO_CREATE_RUN, "context"):
        await superlink.start_run(series_id=run.series_id)


async def test_any_limit_will_do(superlink: Superlink, task: Task) -> None:
    for limit in (2**31, 2**63, 2**64 - 1):
        series = control.ListRunSeriesRequest(limit=min(limit, 2**32 - 1))
        runs = control.ListRunsRequest(limit=limit)
        messages = runtime.PullTaskMessageRequest(limit=limit)
        listed = await superlink.call(
            "Control", "ListRunSeries", series, control.ListRunSeriesResponse
        )
        assert len(listed.entries) == 1
        await superlink.call("Control", "ListRuns", runs, control.ListRunsResponse)
        await task.call("PullTaskMessage", messages, runtime.PullTaskMessageResponse)


async def test_a_value_that_cannot_be_stored_is_refused_and_logged_once(
    connection: Connection, nats_url: str, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(nats_url, pg_dsn) as gateway:
        app = await gateway.server_app()
        for request in (
            runtime.CreateTaskRequest(type="flwr-model", model_ref="a\x00b"),
            runtime.PushTaskOutputRequest(sub_status="nonsense"),
        ):
            name = type(request).__name__.removesuffix("Request")
            logs = CapturingLogger()
            for module in (outcomes, forwarding, rpc):
                monkeypatch.setattr(module, "log", logs)
            with pytest.raises(Refused) as caught:
                await app.call(name, request)
            await asyncio.sleep(0)

            assert caught.value.outcome is Outcome.INVALID_ARGUMENT
            assert [call.args for call in logs.calls] == [("call_refused",)]
            assert logs.calls[0].kwargs["rpc"] == f"Runtime.{name}"


async def test_a_text_that_is_too_long_for_an_index_is_refused(
    superlink: Superlink, task: Task
) -> None:
    await create_model(task, "some/model")
    other = await superlink.claim(task.run_id)
    message = common.Message(content=b"x")
    message.metadata.MergeFrom(
        common.Metadata(
            run_id=task.run_id,
            message_id=LONG,
            src_node_id=1,
            dst_node_id=1,
            src_task_id=task.task_id,
            dst_task_id=other.task_id,
            created_at=2e9,
            ttl=60,
            message_type="system",
        )
    )
    with refused(ErrorCode.MALFORMED_REQUEST, "cannot be stored"):
        await task.call(
            "PushTaskMessage",
            runtime.PushTaskMessageRequest(message=message),
            runtime.PushTaskMessageResponse,
        )


async def test_texts_that_lists_carry_have_a_length_that_lists_can_carry(
    superlink: Superlink, task: Task
) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for fields, code in (
        ({"name": "x" * 201}, ErrorCode.MALFORMED_REQUEST),
        ({"location": f"{'0' * 100}1,2"}, ErrorCode.INVALID_SUPERNODE_LOCATION),
    ):
        with refused(code, "characters"):
            await superlink.call(
                "Control",
                "RegisterNode",
                control.RegisterNodeRequest(public_key=pem, **fields),
                control.RegisterNodeResponse,
            )
    with refused(ErrorCode.INVALID_TASK_CREATION_REQUEST, "at most 1000 characters"):
        await create_model(task, "m" * 1_001)
    for name, request, response in (
        ("CreateTask", runtime.CreateTaskRequest(type=LONG), runtime.CreateTaskResponse),
        (
            "PushTaskOutput",
            runtime.PushTaskOutputRequest(sub_status=LONG),
            runtime.PushTaskOutputResponse,
        ),
    ):
        with pytest.raises(ApiError) as told:
            await task.call(name, request, response)
        assert len(told.value.detail) < 200


# All requests, with strange values


@dataclass
class World:
    """A superlink in its own event loop, and objects that requests can name."""

    runner: asyncio.Runner
    superlink: Superlink
    node: Node
    run: control.StartRunResponse
    fab: bytes

    def caller(self, service: str) -> Caller:
        """Return a caller with the right to call; for Runtime, a new task."""
        caller = Caller(request_id=uuid.uuid4().hex, gateway="gateway")
        if service == "Fleet":
            return replace(caller, public_key=self.node.key, node_id=self.node.node_id)
        if service == "Control":
            return caller
        task = self.runner.run(self.superlink.running_task())
        known = {name: getattr(task, name) for name in ("task_id", "run_id", "task_type")}
        return replace(caller, task_token=token_hash(task.token), **known)

    def sound(self, method: str, caller: Caller) -> ProtoMessage | None:
        """Return a request that would be served; None if an empty request may be served."""
        key, run = self.node.key, self.run
        task_id, run_id = caller.task_id or 0, caller.run_id or 0
        message = common.Message(content=b"x")
        message.metadata.MergeFrom(
            common.Metadata(
                run_id=run_id, message_id=uuid.uuid4().hex, src_node_id=1, dst_node_id=1,
                src_task_id=task_id, dst_task_id=5, created_at=2e9, ttl=60, message_type="system",
            )
        )  # fmt: skip
        sound: dict[str, ProtoMessage] = {
            "ActivateNode": fleet.ActivateNodeRequest(public_key=key, heartbeat_interval=30),
            "StartRun": control.StartRunRequest(fab=common.Fab(content=self.fab)),
            "ListRunSeries": control.ListRunSeriesRequest(updated_before="2099-01-01T00:00:00Z"),
            "GetRunSeries": control.GetRunSeriesRequest(series_id=run.series_id),
            "StopRun": control.StopRunRequest(run_id=run.run_id),
            "UpdateRunSeriesDescription": control.UpdateRunSeriesDescriptionRequest(
                series_id=run.series_id, description="x"
            ),
            "ListRunSeriesEvents": control.ListRunSeriesEventsRequest(series_id=run.series_id),
            "AcquireTask": runtime.AcquireTaskRequest(supported_task_types=["flwr-serverapp"]),
            "PutCompactedContext": runtime.PutCompactedContextRequest(
                context=common.CompactedContext(text="x")
            ),
            "CreateTask": runtime.CreateTaskRequest(type="flwr-model", model_ref="a/b"),
            "PushTaskMessage": runtime.PushTaskMessageRequest(message=message),
            "PushTaskEvents": runtime.PushTaskEventsRequest(
                events=[common.TaskEvent(event="e", data="{}")]
            ),
            "PushTaskOutput": runtime.PushTaskOutputRequest(sub_status="failed", details="x"),
        }
        return sound.get(method)

    def ask(self, service: str, method: str, request: ProtoMessage, caller: Caller) -> None:
        """Forward a request; the answer may be a refusal, but not a request to try again."""
        call = self.superlink.rpc.call
        try:
            self.runner.run(call(service, method, request.SerializeToString(), caller, patience=8))
        except Unavailable as exc:
            pytest.fail(f"{service}.{method} is to be tried again: {exc.detail}")
        except ApiError:
            pass


@pytest.fixture(scope="module")
def world(nats_url: str, create_database: Callable[[], str]) -> Iterator[World]:
    with asyncio.Runner() as runner:
        context = running_superlink(nats_url, create_database())
        superlink = runner.run(context.__aenter__())
        node, run = runner.run(superlink.online_node()), runner.run(superlink.start_run())
        yield World(runner, superlink, node, run, make_fab())
        runner.run(context.__aexit__(None, None, None))


STRANGE: dict[int, list[Any]] = {
    _Field.TYPE_STRING: ["", "\x00", "a\x00b", '{"a": "\\u0000"}', "\U0010ffff", "infinity", LONG],
    _Field.TYPE_BYTES: [b"", b"\x00", b"\xff" * 5, LONG.encode()],
    _Field.TYPE_BOOL: [False, True],
    _Field.TYPE_DOUBLE: [0.0, -1.0, 2e9, 1e300, float("inf"), float("-inf"), float("nan")],
    _Field.TYPE_FLOAT: [0.0, -1.0, float("inf"), float("nan")],
    _Field.TYPE_UINT64: [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1],
    _Field.TYPE_UINT32: [0, 1, 2**32 - 1],
    _Field.TYPE_INT64: [-(2**63), -1, 0, 2**63 - 1],
    _Field.TYPE_SINT64: [-(2**63), -1, 0, 2**63 - 1],
    _Field.TYPE_INT32: [-(2**31), -1, 0, 2**31 - 1],
}
MOMENTS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]


def spoil(draw: Any, message: ProtoMessage, depth: int = 0) -> None:
    """Put strange values into fields of a message, at any depth."""
    for field in message.DESCRIPTOR.fields:
        if depth < 4 and draw(st.integers(0, 9)) >= 6:
            _spoil_field(draw, message, field, depth)


def _spoil_field(draw: Any, message: Any, field: Any, depth: int) -> None:
    kind, target = field.message_type, getattr(message, field.name)
    if kind is None and not field.is_repeated:
        setattr(message, field.name, draw(_strange(field)))
    elif kind is None:
        target.append(draw(_strange(field)))
    elif not field.is_repeated:
        target.SetInParent()
        spoil(draw, target, depth + 1)
    elif not kind.GetOptions().map_entry:
        spoil(draw, target[0] if len(target) else target.add(), depth + 1)
    else:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        name = draw(_strange(key))
        if value.message_type is None:
            target[name] = draw(_strange(value))
        else:
            spoil(draw, target[name], depth + 1)


def _strange(field: Any) -> st.SearchStrategy[Any]:
    if field.name == "updated_before":
        return st.sampled_from(MOMENTS)
    if field.type == _Field.TYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    strange = st.sampled_from(STRANGE[field.type])
    if field.type == _Field.TYPE_STRING:
        return strange | st.text(max_size=5)
    return strange


@pytest.mark.parametrize(("service", "method"), FORWARDED)
def test_no_request_is_one_to_be_tried_again(world: World, service: str, method: str) -> None:
    @settings(
        max_examples=50,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        caller = world.caller(service)
        request = world.sound(method, caller) or BY_NAME[(service, method)].request()
        spoil(data.draw, request)
        world.ask(service, method, request, caller)

    ask()
