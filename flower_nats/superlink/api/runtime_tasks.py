"""The Runtime API for tasks that work together: an agent, the models and tools it calls."""

import json
import time
from collections.abc import Mapping

from flower_nats.logs import get_logger
from flower_nats.model.caller import SUPERLINK_NODE_ID, Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.task import MAY_CREATE_TASKS, NEEDS_FAB, TaskType
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.idempotency import once
from flower_nats.store.task_events import Events
from flower_nats.store.task_messages import TaskMessage, TaskMessages
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.codecs import ProtoHandler, refuse
from flower_nats.superlink.runs.lifecycle import Lifecycle
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.messages import OLDEST_CREATED_AT

log = get_logger(__name__)

_LONGEST_REF = 1_000
"""Characters of the name of what a task needs. Lists of pending tasks carry it."""


class TaskWorkApi:
    """Serves the tasks of one run that create, message and watch each other."""

    def __init__(self, database: Database, lifecycle: Lifecycle) -> None:
        self._database = database
        self._lifecycle = lifecycle

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "CreateTask": self.create_task,
            "PushTaskMessage": self.push_task_message,
            "PullTaskMessage": self.pull_task_message,
            "PushTaskEvents": self.push_task_events,
            "RecordTaskUsage": self.record_task_usage,
            "StartAutomation": refuse(ErrorCode.INVALID_AUTOMATION_REQUEST),
            # The refusal of stock for a task without a connector. Here no task has one.
            "GetConnector": refuse(ErrorCode.CONNECTOR_CREDENTIALS_NOT_AVAILABLE),
        }

    async def create_task(
        self, request: runtime.CreateTaskRequest, caller: Caller
    ) -> runtime.CreateTaskResponse:
        """Create a task in the caller's run."""
        task_id, run_id = _task_of(caller)
        _check_new_task(request, caller)

        async def create(transaction: Transaction) -> bytes:
            created = await Tasks(transaction).create(
                task_id,
                request.type,
                fab_hash=request.fab_hash if request.HasField("fab_hash") else None,
                model_ref=request.model_ref if request.HasField("model_ref") else None,
                connector_ref=request.connector_ref or None,
            )
            if created is None:
                raise ApiError(ErrorCode.AUTHENTICATION_FAILED, f"task {task_id} is finished")
            return runtime.CreateTaskResponse(task_id=created).SerializeToString()

        answer = await once(self._database, caller.request_id, create)
        await self._lifecycle.task_pending(run_id)
        return runtime.CreateTaskResponse.FromString(answer)

    async def push_task_message(
        self, request: runtime.PushTaskMessageRequest, caller: Caller
    ) -> runtime.PushTaskMessageResponse:
        """Store a message from the caller's task to another task of its run."""
        task_id, run_id = _task_of(caller)
        metadata = request.message.metadata
        if metadata.src_task_id != task_id or metadata.run_id != run_id:
            raise ApiError(
                ErrorCode.INVALID_TASK_MESSAGE,
                f"task {task_id} of run {run_id} sent a message of {metadata.src_task_id}",
            )
        if problem := _problem_of(request.message):
            raise ApiError(ErrorCode.INVALID_TASK_MESSAGE, problem, problem)
        message = TaskMessage(
            message_id=metadata.message_id,
            run_id=run_id,
            src_task_id=task_id,
            dst_task_id=metadata.dst_task_id,
            created_at=metadata.created_at,
            expires_at=metadata.created_at + metadata.ttl,
            body=request.message.SerializeToString(),
        )

        async def put(transaction: Transaction) -> bytes:
            if not await TaskMessages(transaction).put(message):
                raise ApiError(ErrorCode.INVALID_TASK_MESSAGE, f"refused {metadata.message_id}")
            return b""

        await once(self._database, caller.request_id, put)
        await self._lifecycle.run_changed(run_id)
        return runtime.PushTaskMessageResponse(message_id=metadata.message_id)

    async def pull_task_message(
        self, request: runtime.PullTaskMessageRequest, caller: Caller
    ) -> runtime.PullTaskMessageResponse:
        """Return and remove the messages for the caller's task."""
        task_id, _ = _task_of(caller)
        limit = min(request.limit, 2**31) if request.HasField("limit") else None
        source = request.src_task_id if request.HasField("src_task_id") else None

        async def take(transaction: Transaction) -> bytes:
            bodies = await TaskMessages(transaction).take(task_id, limit, source)
            return runtime.PullTaskMessageResponse(
                messages=[common.Message.FromString(body) for body in bodies]
            ).SerializeToString()

        answer = await once(self._database, caller.request_id, take)
        return runtime.PullTaskMessageResponse.FromString(answer)

    async def push_task_events(
        self, request: runtime.PushTaskEventsRequest, caller: Caller
    ) -> runtime.PushTaskEventsResponse:
        """Store events of the caller's task; as in stock, invalid events are dropped."""
        task_id, run_id = _task_of(caller)
        if not all(_is_json_object(event.data) for event in request.events):
            log.warning("task_events_dropped", task_id=task_id, run_id=run_id)
            return runtime.PushTaskEventsResponse()
        events = [(event.event, event.data) for event in request.events]

        async def add(transaction: Transaction) -> bytes:
            await Events(transaction).add(run_id, task_id, events)
            return b""

        if events:
            await once(self._database, caller.request_id, add)
            await self._lifecycle.run_changed(run_id)
        return runtime.PushTaskEventsResponse()

    async def record_task_usage(
        self, request: runtime.RecordTaskUsageRequest, caller: Caller
    ) -> runtime.RecordTaskUsageResponse:
        """Store the usage of the caller's task."""
        task = _task_of(caller)

        async def record(transaction: Transaction) -> bytes:
            await Tasks(transaction).add_usage(task, request.task_usage.SerializeToString())
            return b""

        await once(self._database, caller.request_id, record)
        return runtime.RecordTaskUsageResponse()


def _task_of(caller: Caller) -> tuple[int, int]:
    if caller.task_id is None or caller.run_id is None:
        raise ApiError(ErrorCode.AUTHENTICATION_FAILED, "no task token")
    return caller.task_id, caller.run_id


def _check_new_task(request: runtime.CreateTaskRequest, caller: Caller) -> None:
    """Check a request for a new task (rules of flwr 1.33 `supercore/servicer/appio`)."""
    if caller.task_type not in MAY_CREATE_TASKS:
        text = f"Task type '{caller.task_type}' is not allowed to create tasks."
        raise ApiError(ErrorCode.TASK_CREATION_NOT_ALLOWED, text, text)
    problem = None
    if request.type not in set(TaskType):
        problem = f"Invalid task type: {request.type[:80]}"
    elif request.type in NEEDS_FAB and not request.fab_hash:
        problem = f"Task type '{request.type}' requires fab_hash."
    elif request.type == TaskType.MODEL and not request.model_ref:
        problem = f"Task type '{request.type}' requires model_ref."
    elif request.type == TaskType.CONNECTOR and not request.connector_ref:
        problem = f"Task type '{request.type}' requires connector_ref."
    elif max(map(len, (request.fab_hash, request.model_ref, request.connector_ref))) > _LONGEST_REF:
        problem = (
            f"fab_hash, model_ref and connector_ref have at most {_LONGEST_REF} characters each."
        )
    if problem is not None:
        raise ApiError(ErrorCode.INVALID_TASK_CREATION_REQUEST, problem, problem)


def _problem_of(message: common.Message) -> str:
    """Return the error in a message to a task, empty if there is none."""
    metadata = message.metadata
    checks = {
        "it has no id": not metadata.message_id,
        "it names no destination task": not metadata.HasField("dst_task_id"),
        "it is addressed to its sender": metadata.src_task_id == metadata.dst_task_id,
        "tasks exchange messages on the SuperLink only": (
            metadata.src_node_id != SUPERLINK_NODE_ID or metadata.dst_node_id != SUPERLINK_NODE_ID
        ),
        "its creation time is not in seconds since 1970": metadata.created_at < OLDEST_CREATED_AT,
        "its time to live must be above zero": not metadata.ttl > 0,
        "its time to live is over": metadata.created_at + metadata.ttl <= time.time(),
        "it has no type": not metadata.message_type,
        "it must hold either content or an error": (
            message.HasField("content") == message.HasField("error")
        ),
    }
    return "; ".join(text for text, wrong in checks.items() if wrong)


def _is_json_object(data: str) -> bool:
    try:
        return isinstance(json.loads(data, parse_constant=_refuse_constant), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
