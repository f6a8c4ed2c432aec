"""The Runtime API about tasks, for SuperExecs and ServerApps.

The gateway handles messages, objects and logs without a superlink.
"""

import asyncio
import time
from collections.abc import Mapping

from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.long_texts import cut_middle
from flower_nats.model.states import SubStatus
from flower_nats.model.task import SINCE, USES_GRID, Finished, Task, TaskType
from flower_nats.store.connection import ATTEMPT_SECONDS, Database, Transaction
from flower_nats.store.fabs import Fabs
from flower_nats.store.idempotency import once
from flower_nats.store.nodes import Nodes
from flower_nats.store.runs import Runs, RunUsage
from flower_nats.store.series import SeriesStore
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.convert import fab_to_wire, node_to_wire, run_to_wire, task_to_wire
from flower_nats.superlink.runs import simulation
from flower_nats.superlink.runs.lifecycle import Lifecycle
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import runtime_pb2 as runtime

log = get_logger(__name__)

_AWAIT_SECONDS = 15.0
"""Seconds that a call waits for nodes to be heard after an outage: less than its gateway waits."""

_SLOWEST_DISK = 4 * 1024 * 1024
"""Bytes of a context that a slow database stores in a second."""

_AWAIT_EVERY = 0.25
"""Seconds between two checks whether they were heard."""


class RuntimeApi:
    """Serves SuperExecs, which claim tasks, and the processes that they start for them."""

    def __init__(self, database: Database, lifecycle: Lifecycle) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._tasks = Tasks(database)
        self._runs = Runs(database)
        self._fabs = Fabs(database)
        self._series = SeriesStore(database)
        self._nodes = Nodes(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "PullPendingTasks": self.pull_pending_tasks,
            "ClaimTask": self.claim_task,
            "AcquireTask": self.acquire_task,
            "GetRun": self.get_run,
            "SendTaskHeartbeat": self.send_task_heartbeat,
            "PullTaskInput": self.pull_task_input,
            "PushTaskOutput": self.push_task_output,
            "GetNodes": self.get_nodes,
        }

    async def pull_pending_tasks(
        self, request: runtime.PullPendingTasksRequest, caller: Caller
    ) -> runtime.PullPendingTasksResponse:
        """Return the unclaimed tasks that the SuperExec can launch, oldest first.

        A SuperExec claims the first task, and drops it if the type is too new. The task would be
        pending again after 30 s, and then be the first again, for ever.
        """
        types = {
            kind
            for release, kinds in SINCE.items()
            for kind in kinds
            if not caller.is_older_than(*release)
        }
        if not await self._tasks.has_room(caller.superexec_host):
            types.discard(TaskType.SIMULATION)
        tasks = await self._tasks.pending(types)
        return runtime.PullPendingTasksResponse(tasks=[task_to_wire(task) for task in tasks])

    async def claim_task(
        self, request: runtime.ClaimTaskRequest, caller: Caller
    ) -> runtime.ClaimTaskResponse:
        """Claim a pending task; the answer has no token if it is not pending.

        The answer has the token's hash. The gateway knows the token, and replaces the hash by it.
        """
        task = await self._tasks.claim(
            request.task_id,
            _new_token(caller),
            caller.gateway,
            caller.superexec_host,
            caller.address,
        )
        if task is None:
            return runtime.ClaimTaskResponse()
        log.info("task_claimed", **task.log_context(), address=caller.address)
        await self._lifecycle.run_changed(task.run_id)
        return runtime.ClaimTaskResponse(token=caller.new_task_token.hex())

    async def acquire_task(
        self, request: runtime.AcquireTaskRequest, caller: Caller
    ) -> runtime.AcquireTaskResponse:
        """Claim the oldest pending task that the SuperExec has room for, if there is one.

        As with `claim_task`, the answer has the hash of the token.
        """
        token = _new_token(caller)

        async def acquire(transaction: Transaction) -> Task | None:
            return await Tasks(transaction).acquire(
                request.supported_task_types,
                request.agentapp_fab_hashes,
                token,
                caller.gateway,
                caller.superexec_host,
                caller.address,
            )

        task = await self._database.transaction(acquire)
        if task is None:
            return runtime.AcquireTaskResponse()
        log.info("task_claimed", **task.log_context(), address=caller.address)
        await self._lifecycle.run_changed(task.run_id)
        return runtime.AcquireTaskResponse(task=task_to_wire(task), token=token.hex())

    async def get_run(self, request: common.GetRunRequest, caller: Caller) -> common.GetRunResponse:
        """Return a run; empty if there is none, or if a task asks for another task's run."""
        if caller.run_id is not None and caller.run_id != request.run_id:
            return common.GetRunResponse()
        run = await self._runs.get(request.run_id)
        return common.GetRunResponse(run=None if run is None else run_to_wire(run))

    async def send_task_heartbeat(
        self, request: runtime.SendTaskHeartbeatRequest, caller: Caller
    ) -> runtime.SendTaskHeartbeatResponse:
        """Note a task's heartbeat; `success=false` interrupts its process, unless it is ending."""
        task_id, token = authenticated(caller)
        lives = await self._tasks.heartbeat(task_id, token, caller.gateway)
        return runtime.SendTaskHeartbeatResponse(
            success=lives or await self._tasks.by_token(token) is not None
        )

    async def pull_task_input(
        self, request: runtime.PullTaskInputRequest, caller: Caller
    ) -> runtime.PullTaskInputResponse:
        """Start a task and return its input; while it runs, return the same input again."""
        task_id, token = authenticated(caller)
        task = await self._tasks.activate(task_id, token, caller.gateway)
        run = None if task is None else await self._runs.get(task.run_id)
        fab = None if run is None else await self._fabs.get(run.fab_hash)
        if task is None or run is None or fab is None:
            text = f"Failed to start task {task_id} of run {caller.run_id}"
            raise ApiError(ErrorCode.TASK_START_FAILED, text, text)
        log.info("task_started", **task.log_context())
        await self._lifecycle.run_changed(task.run_id)
        return runtime.PullTaskInputResponse(
            context=await self._series.context(run.series_id),
            run=run_to_wire(run),
            fab=fab_to_wire(fab),
            federation_config=await self._simulation_config(run.run_id),
            task_id=task_id,
        )

    async def _simulation_config(self, run_id: int) -> common.SimulationConfig | None:
        config = await self._runs.simulation_config(run_id)
        return None if config is None else common.SimulationConfig.FromString(config)

    async def push_task_output(
        self, request: runtime.PushTaskOutputRequest, caller: Caller
    ) -> runtime.PushTaskOutputResponse:
        """Finish the caller's task, and store its context for its series."""
        task_id, token = authenticated(caller)
        sub_status = _sub_status(request)
        simulates = caller.task_type == TaskType.SIMULATION
        details = cut_middle(request.details)
        if simulates:
            details = simulation.explained(details)
        finished: Finished | None = None

        async def finish(transaction: Transaction) -> bytes:
            nonlocal finished
            finished = await Tasks(transaction).finish(task_id, sub_status, details, token)
            if finished is not None:
                await _keep_output(transaction, finished, request)
            elif await Tasks(transaction).by_token(token) is None:
                raise ApiError(ErrorCode.AUTHENTICATION_FAILED, f"not the token of {task_id}")
            return b""

        # Contexts that take less than a second more need no statement for a time limit of their own.
        seconds = ATTEMPT_SECONDS + len(request.context) // _SLOWEST_DISK
        await once(self._database, caller.request_id, finish, seconds)
        if finished is None:
            log.warning("task_output_ignored", task_id=task_id, sub_status=request.sub_status)
        else:
            log.info("task_finished", task_id=task_id, sub_status=request.sub_status)
            await self._lifecycle.task_finished(finished)
        return runtime.PushTaskOutputResponse()

    async def get_nodes(
        self, request: runtime.GetNodesRequest, caller: Caller
    ) -> runtime.GetNodesResponse:
        """Return the online nodes of the run's federation.

        After an outage of the runtime, nodes that were online before it count once they are heard
        again. The answer waits for them a little, so that a round is not started without them.
        """
        if caller.task_type not in USES_GRID:
            raise ApiError(ErrorCode.ENDPOINT_UNAVAILABLE, f"task is a {caller.task_type}")
        run_id = caller.run_id or 0
        await self._until_heard(run_id)
        online = await self._nodes.online_of_run(run_id)
        if caller.is_older_than(1, 38):
            # Older apps read only the ids, once a second.
            nodes = [common.NodeInfo(node_id=node.node_id) for node in online]
        else:
            nodes = [node_to_wire(node) for node in online]
        return runtime.GetNodesResponse(nodes=nodes)

    async def _until_heard(self, run_id: int) -> None:
        deadline = time.monotonic() + _AWAIT_SECONDS
        while time.monotonic() < deadline:
            if not await self._nodes.is_awaited(run_id):
                return
            await asyncio.sleep(_AWAIT_EVERY)


def authenticated(caller: Caller) -> tuple[int, bytes]:
    """Return the caller's task and the hash of its token."""
    if caller.task_id is None or not caller.task_token:
        raise ApiError(ErrorCode.AUTHENTICATION_FAILED, "no task token")
    return caller.task_id, caller.task_token


def _new_token(caller: Caller) -> bytes:
    if not caller.new_task_token:
        raise ApiError(ErrorCode.AUTHENTICATION_FAILED, "no token for the task that is claimed")
    return caller.new_task_token


def _sub_status(request: runtime.PushTaskOutputRequest) -> SubStatus:
    try:
        return SubStatus(request.sub_status)
    except ValueError as exc:
        raise ApiError(
            ErrorCode.MALFORMED_REQUEST, f"no sub-status is called {request.sub_status[:80]!r}"
        ) from exc


async def _keep_output(
    transaction: Transaction, finished: Finished, request: runtime.PushTaskOutputRequest
) -> None:
    if request.HasField("context"):
        await SeriesStore(transaction).keep_context(finished.task_id, request.context)
    if request.HasField("clientapp_runtime"):
        usage = RunUsage(finished.run_id, 0, 0, request.clientapp_runtime)
        await Runs(transaction).add_usage([usage])
