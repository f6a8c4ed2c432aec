"""What the gateway remembers of nodes, tasks and runs, so that most calls ask nobody.

Every entry is dropped by a hint when the superlink changes what it says, and after a short time in
case the hint was lost.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from flower_nats.broker.hints import Wakes
from flower_nats.broker.rpc import RpcClient
from flower_nats.model.errors import ApiError, ErrorCode

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_NODE_SECONDS = 60.0
_TASK_SECONDS = 15.0
_RUN_SECONDS = 5.0
_ENTRIES = 50_000


@dataclass(frozen=True)
class Task:
    """The task that a token stands for."""

    task_id: int
    run_id: int
    type: str


@dataclass(frozen=True)
class RunState:
    """The state of a run."""

    status: str
    sub_status: str


class _Cache(Generic[_K, _V]):
    """Answers of a question, each for `seconds`; the same question is asked once at a time."""

    def __init__(self, ask: Callable[[_K], Awaitable[_V | None]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._known: OrderedDict[_K, tuple[float, _V]] = OrderedDict()
        self._asking: dict[_K, asyncio.Task[_V | None]] = {}

    async def get(self, key: _K) -> _V | None:
        found = self._known.get(key)
        if found is not None and found[0] > time.monotonic():
            return found[1]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._learn(key), name=f"learn {type(key).__name__}")
            self._asking[key] = task
        # Others wait for the same answer: a caller that goes away must not take it from them.
        return await asyncio.shield(task)

    def drop(self, matches: Callable[[_K, _V], bool]) -> None:
        for key in [key for key, (_, value) in self._known.items() if matches(key, value)]:
            del self._known[key]

    async def _learn(self, key: _K) -> _V | None:
        try:
            value = await self._ask(key)
        finally:
            del self._asking[key]
        if value is not None:
            self._known[key] = (time.monotonic() + self._seconds, value)
            self._known.move_to_end(key)
            if len(self._known) > _ENTRIES:
                self._known.popitem(last=False)
        return value


class Identities:
    """Who is behind a key or a token, and how a run stands."""

    def __init__(self, rpc: RpcClient, wakes: Wakes, *, supernode_auth: bool) -> None:
        self._rpc = rpc
        self._supernode_auth = supernode_auth
        self._nodes: _Cache[bytes, int] = _Cache(self._ask_node, _NODE_SECONDS)
        self._tasks: _Cache[str, Task] = _Cache(self._ask_task, _TASK_SECONDS)
        self._runs: _Cache[int, RunState] = _Cache(self._ask_run, _RUN_SECONDS)
        wakes.listen("fn.event.node.", self._on_node_event)
        wakes.listen("fn.event.run.", self._on_run_event)

    async def node(self, public_key: bytes) -> int | None:
        """Return the id of the node with this key, None if it has no place here.

        That is a key that is unknown or unregistered, or, with SuperNode authentication, one that no
        account has registered.
        """
        return await self._nodes.get(public_key)

    async def task(self, token: str) -> Task | None:
        """Return the task of a token, None if the token is unknown or no longer valid."""
        return await self._tasks.get(token)

    async def run(self, run_id: int) -> RunState | None:
        """Return the state of a run, None if there is no such run."""
        return await self._runs.get(run_id)

    async def require_running(self, run_id: int) -> None:
        """Raise `ApiError` (RUN_STATUS_NOT_ALLOWED) unless the run is running."""
        state = await self.run(run_id)
        if state is None or state.status != "running":
            status = state.status if state else "unknown"
            stopped = " Stopped by user." if state and state.sub_status == "stopped" else ""
            reason = f"Run {run_id} is {status}.{stopped}"
            raise ApiError(ErrorCode.RUN_STATUS_NOT_ALLOWED, reason, public_details=reason)

    async def _ask_node(self, public_key: bytes) -> int | None:
        answer = await self._rpc.ask("ResolveNode", public_key=public_key)
        # A superlink of before this was asked says nothing: then the answer is no.
        if self._supernode_auth and not answer.get("registered_by_account"):
            return None
        node_id: int | None = answer["node_id"]
        return node_id

    async def _ask_task(self, token: str) -> Task | None:
        task = (await self._rpc.ask("ResolveToken", token=token))["task"]
        return Task(task["task_id"], task["run_id"], task["type"]) if task else None

    async def _ask_run(self, run_id: int) -> RunState | None:
        answer = await self._rpc.ask("RunState", run_id=run_id)
        if answer["status"] is None:
            return None
        return RunState(answer["status"], answer["sub_status"])

    def _on_node_event(self, subject: str, _payload: bytes) -> None:
        node_id = int(subject.rpartition(".")[2])
        self._nodes.drop(lambda _key, known: known == node_id)

    def _on_run_event(self, subject: str, _payload: bytes) -> None:
        run_id = int(subject.rpartition(".")[2])
        self._runs.drop(lambda key, _state: key == run_id)
        self._tasks.drop(lambda _token, task: task.run_id == run_id)
