"""The gateway's cache of nodes, tasks and runs, so that most calls need no question.

A hint drops an entry when a superlink changes its object. After a short time an entry is asked for
again, in case the hint was lost.
"""

from dataclasses import dataclass

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.states import Status
from flower_nats_gateway.cluster.expiring_cache import ExpiringCache

_NODE_SECONDS = 60.0
_TASK_SECONDS = 15.0
_RUN_SECONDS = 5.0

_BEFORE_RUNNING = frozenset({Status.PENDING, Status.STARTING})


@dataclass(frozen=True)
class Node:
    """The node of a key."""

    node_id: int
    has_left: bool
    """Whether it was just unregistered, so that its process is ending."""


def shut_out(node_id: int) -> ApiError:
    """Return the refusal of a call by a node that was unregistered.

    A stock SuperNode ends after this refusal and does not print it. So the gateway logs the reason.
    """
    return ApiError(
        ErrorCode.INVALID_NODE_ID,
        f"SuperNode {node_id} was unregistered, so its process ends. Its own log does not say "
        "why. Remedy: to admit it again, register its key with `flwr supernode register` and "
        "start it again",
    )


@dataclass(frozen=True)
class Task:
    """The task of a token."""

    task_id: int
    run_id: int
    type: str
    finished: bool
    """Whether it has finished itself, so that its process is ending."""


@dataclass(frozen=True)
class RunState:
    """The state of a run."""

    status: str
    sub_status: str


class Directory:
    """The node of a key, the task of a token, and the state of a run."""

    def __init__(self, rpc: RpcClient, *, supernode_auth: bool) -> None:
        self._rpc = rpc
        self._supernode_auth = supernode_auth
        self._nodes: ExpiringCache[bytes, Node] = ExpiringCache(self._ask_node, _NODE_SECONDS)
        self._tasks: ExpiringCache[bytes, Task] = ExpiringCache(self._ask_task, _TASK_SECONDS)
        self._runs: ExpiringCache[int, RunState] = ExpiringCache(self._ask_run, _RUN_SECONDS)

    async def node(self, public_key: bytes) -> Node | None:
        """Return the node with this key, None if it may not call.

        None is for a key that is unknown or was unregistered some time ago, or, with SuperNode
        authentication, that no account has registered.
        """
        return await self._nodes.get(public_key)

    async def node_now(self, public_key: bytes) -> Node | None:
        """Return the same without the cache: the key may belong to another node by now."""
        return await self._nodes.fresh(public_key)

    async def task(self, task_token: bytes) -> Task | None:
        """Return the task of a token, by its hash; None if the token is not valid."""
        return await self._tasks.get(task_token)

    async def require_task(self, task_token: bytes) -> None:
        """Raise `ApiError` (AUTHENTICATION_FAILED) unless the token's task still runs, asked anew.

        Call this before the answer that data of a run is missing: the data may have been removed
        with the run, and the hint about that may be lost or late.
        """
        task = await self._tasks.fresh(task_token)
        if task is None or task.finished:
            raise ApiError(ErrorCode.AUTHENTICATION_FAILED, "the run of this token has ended")

    async def run(self, run_id: int) -> RunState | None:
        """Return the state of a run, None if there is no such run."""
        return await self._runs.get(run_id)

    async def require_running(
        self, run_id: int, refusal: ErrorCode = ErrorCode.RUN_STATUS_NOT_ALLOWED
    ) -> None:
        """Raise `ApiError` with the code `refusal` unless the run is running."""
        if reason := await self.why_not_running(run_id):
            raise ApiError(refusal, reason, public_details=reason)

    async def why_not_running(self, run_id: int) -> str:
        """Return, for a caller, why a run is not running; empty while it is running."""
        state = await self.run(run_id)
        if state is not None and state.status in _BEFORE_RUNNING:
            # A refused client gives up for good. So never refuse from the cache, because a hint may
            # be lost.
            state = await self._runs.fresh(run_id)
        if state is None:
            return f"Run {run_id} is unknown."
        if state.status == Status.RUNNING:
            return ""
        stopped = " Stopped by user." if state.sub_status == "stopped" else ""
        return f"Run {run_id} is {state.status}.{stopped}"

    async def _ask_node(self, public_key: bytes) -> Node | None:
        answer = await self._rpc.look_up("ResolveNode", public_key=public_key)
        # A superlink of an older version does not send a newer field. Its absence means no.
        if (left := answer.get("left")) is not None:
            return Node(left, has_left=True)
        if self._supernode_auth and not answer.get("registered_by_account"):
            return None
        return None if answer["node_id"] is None else Node(answer["node_id"], has_left=False)

    async def _ask_task(self, task_token: bytes) -> Task | None:
        task = (await self._rpc.look_up("ResolveToken", task_token=task_token))["task"]
        if not task:
            return None
        # The same as for nodes.
        finished = bool(task.get("finished"))
        return Task(task["task_id"], task["run_id"], task["type"], finished)

    async def _ask_run(self, run_id: int) -> RunState | None:
        answer = await self._rpc.look_up("RunState", run_id=run_id)
        if answer["status"] is None:
            return None
        return RunState(answer["status"], answer["sub_status"])

    def forget_node(self, node_id: int) -> None:
        """Drop a node from the cache: it was registered or unregistered."""
        self._nodes.drop(lambda _key, node: node.node_id == node_id)

    def forget_run(self, run_id: int) -> None:
        """Drop a run and its tasks from the cache: their status has changed."""
        self._runs.drop(lambda key, _state: key == run_id)
        self._tasks.drop(lambda _token, task: task.run_id == run_id)

    def doubt_all(self) -> None:
        """Ask anew about every entry, because hints may have been missed."""
        self._nodes.doubt()
        self._tasks.doubt()
        self._runs.doubt()
