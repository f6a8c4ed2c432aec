"""What the gateway remembers of nodes, tasks and runs, so that most calls ask nobody.

Every entry is dropped by a hint when the superlink changes what it says, and asked for anew after a
short time in case the hint was lost.
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
    """The node that a key stands for."""

    node_id: int
    has_left: bool
    """It was unregistered just now, and its process is ending."""


def shut_out(node_id: int) -> ApiError:
    """Return the refusal of a call by a node that was unregistered.

    A stock SuperNode ends at it, and prints nothing of it. So the reason is in the gateway's log.
    """
    return ApiError(
        ErrorCode.INVALID_NODE_ID,
        f"SuperNode {node_id} was unregistered, so its process ends. Its own log does not say "
        "why. Remedy: to admit it again, register its key with `flwr supernode register` and "
        "start it again",
    )


@dataclass(frozen=True)
class Task:
    """The task that a token stands for."""

    task_id: int
    run_id: int
    type: str
    finished: bool
    """It has finished itself, and its process is ending."""


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
        """Return the node with this key, None if it has no place here.

        That is a key that is unknown or was unregistered some time ago, or, with SuperNode
        authentication, one that no account has registered.
        """
        return await self._nodes.get(public_key)

    async def node_now(self, public_key: bytes) -> Node | None:
        """Return the same, not from memory: the key may be registered again, as another node."""
        return await self._nodes.fresh(public_key)

    async def task(self, task_token: bytes) -> Task | None:
        """Return the task of a token, by its hash; None if it is unknown or no longer valid."""
        return await self._tasks.get(task_token)

    async def require_task(self, task_token: bytes) -> None:
        """Raise `ApiError` (AUTHENTICATION_FAILED) unless the token's task goes on, as is known now.

        Ask it before saying that something of a run is not there: it may have been cleared away with
        the run, and the hint of that be lost or late.
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
        """Say to a caller why a run is over, or not yet begun; nothing while it is running."""
        state = await self.run(run_id)
        if state is not None and state.status in _BEFORE_RUNNING:
            # A refused client gives up for good, so never refuse from memory: a hint may be lost.
            state = await self._runs.fresh(run_id)
        if state is None:
            return f"Run {run_id} is unknown."
        if state.status == Status.RUNNING:
            return ""
        stopped = " Stopped by user." if state.sub_status == "stopped" else ""
        return f"Run {run_id} is {state.status}.{stopped}"

    async def _ask_node(self, public_key: bytes) -> Node | None:
        answer = await self._rpc.look_up("ResolveNode", public_key=public_key)
        # A superlink of an older version does not answer a newer question: that means no.
        if (left := answer.get("left")) is not None:
            return Node(left, has_left=True)
        if self._supernode_auth and not answer.get("registered_by_account"):
            return None
        return None if answer["node_id"] is None else Node(answer["node_id"], has_left=False)

    async def _ask_task(self, task_token: bytes) -> Task | None:
        task = (await self._rpc.look_up("ResolveToken", task_token=task_token))["task"]
        if not task:
            return None
        # As with nodes.
        finished = bool(task.get("finished"))
        return Task(task["task_id"], task["run_id"], task["type"], finished)

    async def _ask_run(self, run_id: int) -> RunState | None:
        answer = await self._rpc.look_up("RunState", run_id=run_id)
        if answer["status"] is None:
            return None
        return RunState(answer["status"], answer["sub_status"])

    def forget_node(self, node_id: int) -> None:
        """Ask anew about a node: it was registered or unregistered."""
        self._nodes.drop(lambda _key, node: node.node_id == node_id)

    def forget_run(self, run_id: int) -> None:
        """Ask anew about a run and its tasks: their status has changed."""
        self._runs.drop(lambda key, _state: key == run_id)
        self._tasks.drop(lambda _token, task: task.run_id == run_id)

    def doubt_all(self) -> None:
        """Ask anew about everything: hints may have been missed."""
        self._nodes.doubt()
        self._tasks.doubt()
        self._runs.doubt()
