"""A superlink for tests, which asks it like a gateway: over NATS, for some caller."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytest
from google.protobuf.message import Message as ProtoMessage
from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.permissions import User
from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.ids import token_for, token_hash
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.connection import Database
from flower_nats.superlink.worker import serve
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from harness.fabs import make_fab
from harness.logins import as_user

M = TypeVar("M", bound=ProtoMessage)

_MANY = 50
"""Silent members: among so many, a question hardly ever reaches a member that answers."""


def superexec_heard(**fields: Any) -> dict[str, Any]:
    """Return a gateway's report of a SuperExec that it has heard."""
    heard = {"address": "10.0.0.5", "version": "1.42.0", "host": "", "refused": "", "seconds": 1.0}
    return {**heard, **fields}


@dataclass
class Superlink:
    """A running superlink, with its broker and its database."""

    rpc: RpcClient
    connection: Connection
    database: Database
    stop: asyncio.Event
    running: asyncio.Task[None]

    async def call(
        self, service: str, method: str, request: ProtoMessage, answer: type[M], **caller: Any
    ) -> M:
        """Forward one RPC like a gateway."""
        caller.setdefault("request_id", uuid.uuid4().hex)
        token = ""
        if method in {"ClaimTask", "AcquireTask"}:
            token = token_for(caller["request_id"], getattr(request, "task_id", 0))
            caller["new_task_token"] = token_hash(token)
        body = await self.rpc.call(
            service, method, request.SerializeToString(), Caller(**caller), patience=10
        )
        response: Any = answer.FromString(body)
        if token and response.token:
            assert response.token == token_hash(token).hex()
            response.token = token
        return cast(M, response)

    async def ask(self, method: str, **question: Any) -> dict[str, Any]:
        """Ask an internal question."""
        return await self.rpc.ask(method, patience=10, **question)

    async def command(self, method: str, **question: Any) -> dict[str, Any]:
        """Ask a question of operators."""
        return await self.rpc.ask(method, patience=10, service=subjects.OPERATOR, **question)

    async def begin_login(self, **caller: Any) -> control.GetLoginDetailsResponse:
        """Ask for a login, like `flwr login`."""
        request, response = control.GetLoginDetailsRequest(), control.GetLoginDetailsResponse
        return await self.call("Control", "GetLoginDetails", request, response, **caller)

    async def auth_tokens(self, device_code: str) -> control.GetAuthTokensResponse:
        """Ask whether a login is confirmed."""
        request = control.GetAuthTokensRequest(device_code=device_code)
        return await self.call("Control", "GetAuthTokens", request, control.GetAuthTokensResponse)

    async def refresh_tokens(self, token: str) -> control.RefreshAuthTokensResponse:
        """Ask for new tokens in place of those of a refresh token."""
        request = control.RefreshAuthTokensRequest(refresh_token=token)
        response = control.RefreshAuthTokensResponse
        return await self.call("Control", "RefreshAuthTokens", request, response)

    async def announce_gateway(self, *superexecs: dict[str, Any], **about: Any) -> None:
        """Announce a gateway that has heard these SuperExecs, and has long received heartbeats."""
        about = {"superexecs": superexecs, **about}
        await self.ask("Announce", kind="gateway", id="gateway", since=1.0, about=about)

    async def start_run(self, **fields: Any) -> control.StartRunResponse:
        """Start a run of a small app."""
        request = control.StartRunRequest(fab=common.Fab(content=make_fab()), **fields)
        return await self.call("Control", "StartRun", request, control.StartRunResponse)

    async def start_run_again(self) -> None:
        """Try to start a run until the superlink takes one. The caller bounds the time."""
        while True:
            try:
                await self.start_run()
            except ApiError:
                await asyncio.sleep(0.1)
            else:
                return

    async def claim(self, run_id: int, **caller: Any) -> Task:
        """Claim a run's pending task like a SuperExec."""
        pending = await self.call(
            "Runtime",
            "PullPendingTasks",
            runtime.PullPendingTasksRequest(),
            runtime.PullPendingTasksResponse,
        )
        [task] = [task for task in pending.tasks if task.run_id == run_id]
        answer = await self.call(
            "Runtime",
            "ClaimTask",
            runtime.ClaimTaskRequest(task_id=task.task_id),
            runtime.ClaimTaskResponse,
            **caller,
        )
        return Task(self, task.task_id, run_id, task.type, answer.token)

    async def running_task(self) -> Task:
        """Start a run and its ServerApp."""
        run = await self.start_run()
        task = await self.claim(run.run_id)
        await task.pull_input()
        return task

    async def status(self, run_id: int) -> tuple[str | None, str, str]:
        """Return a run's status (None if unknown), sub-status and details."""
        state = await self.ask("RunState", run_id=run_id)
        return state["status"], state["sub_status"], state["details"]

    async def online_node(self, key: bytes | None = None, **caller: Any) -> Node:
        """Register and activate a node with these fields of its caller."""
        key = key or uuid.uuid4().bytes
        registered = await self.call(
            "Fleet",
            "RegisterNode",
            fleet.RegisterNodeFleetRequest(public_key=key),
            fleet.RegisterNodeFleetResponse,
            public_key=key,
        )
        node = Node(self, registered.node_id, key)
        await node.activate(**caller)
        return node


@dataclass
class Node:
    """A SuperNode, as a gateway forwards its calls."""

    superlink: Superlink
    node_id: int
    key: bytes

    async def activate(self, interval: float = 30.0, **caller: Any) -> int:
        """Come online."""
        answer = await self.call(
            "ActivateNode",
            fleet.ActivateNodeRequest(public_key=self.key, heartbeat_interval=interval),
            fleet.ActivateNodeResponse,
            **caller,
        )
        return answer.node_id

    async def call(self, method: str, request: ProtoMessage, answer: type[M], **caller: Any) -> M:
        """Call a Fleet RPC as this node."""
        caller = {"public_key": self.key, "node_id": self.node_id, **caller}
        return await self.superlink.call("Fleet", method, request, answer, **caller)


@dataclass
class Task:
    """The process of a claimed task."""

    superlink: Superlink
    task_id: int
    run_id: int
    task_type: str
    token: str

    async def call(self, method: str, request: ProtoMessage, answer: type[M], **more: Any) -> M:
        """Call a ServerAppIo RPC with this task's token."""
        return await self.superlink.call(
            "Runtime",
            method,
            request,
            answer,
            task_id=self.task_id,
            run_id=self.run_id,
            task_type=self.task_type,
            task_token=token_hash(self.token),
            **more,
        )

    async def pull_input(self) -> runtime.PullTaskInputResponse:
        """Start the task."""
        return await self.call(
            "PullTaskInput", runtime.PullTaskInputRequest(), runtime.PullTaskInputResponse
        )

    async def push_output(
        self, sub_status: str = "completed", request_id: str | None = None, **fields: Any
    ) -> None:
        """Finish the task."""
        await self.call(
            "PushTaskOutput",
            runtime.PushTaskOutputRequest(sub_status=sub_status, **fields),
            runtime.PushTaskOutputResponse,
            request_id=request_id or uuid.uuid4().hex,
        )

    async def heartbeat(self) -> bool:
        """Send one heartbeat."""
        answer = await self.call(
            "SendTaskHeartbeat",
            runtime.SendTaskHeartbeatRequest(),
            runtime.SendTaskHeartbeatResponse,
        )
        return answer.success


@contextmanager
def refused(code: ErrorCode, said: str = "") -> Iterator[pytest.ExceptionInfo[ApiError]]:
    """Expect a refusal with this code, and with `said` in its public details."""
    with pytest.raises(ApiError) as error:
        yield error
    assert error.value.code is code, error.value.detail
    assert said in (error.value.public_details or "")


@asynccontextmanager
async def running_superlink(nats_url: str, dsn: str, **settings: Any) -> AsyncIterator[Superlink]:
    """Run a superlink in this process; it ends with the context."""
    stop = asyncio.Event()
    running = asyncio.create_task(
        serve(
            SuperlinkSettings(nats=(as_user(nats_url, User.SUPERLINK),), database=dsn, **settings),
            stop,
        )
    )
    connection = await Connection.connect([nats_url], "test")
    database = Database(dsn, max_connections=2)
    try:
        await database.open()
        superlink = Superlink(RpcClient(connection), connection, database, stop, running)
        # On a busy machine the start of a superlink takes longer than any answer.
        await superlink.rpc.ask("RunState", patience=60, run_id=0)
        yield superlink
    finally:
        stop.set()
        await running
        await database.close()
        await connection.close()


@asynccontextmanager
async def silent_superlinks(
    connection: Connection, method: str, service: str = "Internal"
) -> AsyncIterator[None]:
    """Let many superlinks that never answer take part in serving an RPC."""

    async def say_nothing(_message: Msg) -> None:
        pass

    subject = subjects.api(service, method)
    subscriptions = [
        await connection.subscribe(subject, say_nothing, queue=subjects.WORKERS)
        for _ in range(_MANY)
    ]
    # An answer to this request shows that the server has the subscriptions.
    await connection.info(subjects.LOGS_STREAM)
    yield
    for one in subscriptions:
        await one.unsubscribe()
