"""A run's ServerApp, which calls as stock SuperExecs and ServerApps do (flwr 1.33
`superlink/runtime/run_serverapp.py`, `superlink/grid/grpc_grid.py`, `common/logger.py`; over HTTP as
those of flwr 1.35 and newer, `supercore/exit/exit.py`)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from flwr.app import Message

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.messages import object_ids
from harness import app
from harness.channels import Refused
from harness.children import PATIENCE
from harness.clients import ServerApp
from harness.fabs import make_fab
from harness.messages import Parcel, inflate, instruction
from harness.nodes import Node
from harness.wire import ClientDied, Wire, beat_forever, in_parallel, when_available

INCOMPLETE_SLEEP = 3.0
_UNKNOWN_MESSAGE = 3
_TASK_TYPE = "flwr-serverapp"
_POLL_INTERVAL = 1.0
_UPLOAD_INTERVAL = 0.2
_FLUSH_SECONDS = 3.0
_LAST_UPLOAD_SECONDS = 1.0
_FORCE_EXIT_SECONDS = 5.0
"""A process that has begun to exit is gone after this time (flwr 1.35 and newer)."""


class SuperExec:
    """Takes tasks as stock SuperExecs do, and starts the ServerApps of their runs.

    With several wires, it acts as several SuperExecs that share the work.
    """

    def __init__(self, *wires: Wire) -> None:
        self._all = wires
        self._wires = itertools.cycle(wires)
        self._taken: dict[int, tuple[int, str]] = {}
        """Ids and tokens of tasks that no ServerApp has asked for yet, by run."""
        self._turn = asyncio.Lock()

    async def task_of(self, run_id: int) -> tuple[int, str]:
        """Take tasks until there is one of this run; return its id and token."""
        async with self._turn:
            while run_id not in self._taken:
                wire = next(self._wires)
                take = self._acquire if wire.name == "http" else self._claim
                if not await take(wire):
                    await asyncio.sleep(_POLL_INTERVAL)
        return self._taken.pop(run_id)

    async def close(self) -> None:
        """Close all wires."""
        await asyncio.gather(*(wire.close() for wire in self._all))

    async def _acquire(self, wire: Wire) -> bool:
        request = runtime.AcquireTaskRequest(supported_task_types=[_TASK_TYPE])
        answer = await wire.call("Runtime", "AcquireTask", request)
        if answer.HasField("task"):
            self._taken[answer.task.run_id] = answer.task.task_id, answer.token
        return bool(answer.HasField("task"))

    async def _claim(self, wire: Wire) -> bool:
        request = runtime.PullPendingTasksRequest()
        pending = await wire.call("Runtime", "PullPendingTasks", request)
        for task in pending.tasks[:1]:
            claimed = runtime.ClaimTaskRequest(task_id=task.task_id)
            token = (await wire.call("Runtime", "ClaimTask", claimed)).token
            if token:
                self._taken[task.run_id] = task.task_id, token
                return True
        return False


class StockApp:
    """A ServerApp that asks all nodes, round after round, until `finish` or `limit` ends it."""

    def __init__(
        self,
        control_wire: Wire,
        wire: Wire,
        nodes: Sequence[Node],
        limit: int | None = None,
        superexec: SuperExec | None = None,
    ) -> None:
        """Without `superexec`, the app has a SuperExec of its own."""
        self.wire = wire
        self.nodes = list(nodes)
        self.run_id = 0
        self.limit = limit
        """The app ends after this number of rounds; None: after a call of `finish`."""
        self.rounds = 0
        """Rounds that are complete."""
        self.value = 1
        """The result so far."""
        self.pushed: set[str] = set()
        """Ids of messages that the server has taken, with all their objects."""
        self.outcomes: Counter[str] = Counter()
        """How often each pushed message id had an outcome."""
        self.errors: list[str] = []
        """Outcomes that were errors."""
        self.seconds: list[str] = []
        """Second outcomes of messages, found when the app asked for all outcomes again."""
        self.spans: list[tuple[float, float]] = []
        """When each round began and ended, by `time.monotonic`."""
        self.log = ""
        """All lines that the app has printed."""
        self.death: Exception | None = None
        self.before_last_line: Callable[[], Awaitable[None]] = _nothing
        """Called before the app prints its last line, the result."""
        self.before_exit: Callable[[], None] = lambda: None
        """Called before the app pushes its output."""
        self._control = control_wire
        self._superexec = superexec or SuperExec(wire)
        self._unsent: list[str] = []
        self._uploading: list[str] = []
        self._uploads = 0
        self._replies: dict[str, str] = {}
        self._enough = asyncio.Event()
        self._round_done = asyncio.Condition()
        self._served: ServerApp | None = None
        self._main: asyncio.Task[None] | None = None
        self._sides: list[asyncio.Task[None]] = []

    async def submit(self, fab: bytes | None = None) -> None:
        """Submit the run, as `flwr run` does."""
        request = control.StartRunRequest(fab=common.Fab(content=fab or make_fab()))
        answer = await self._control.call_once("Control", "StartRun", request)
        self.run_id = answer.run_id

    async def start(self) -> None:
        """Take a task from the SuperExec, pull the task's input, and begin the rounds."""
        task_id, token = await self._superexec.task_of(self.run_id)
        # From here on, the ServerApp's own process makes the calls.
        await self.wire.reconnect()
        self._served = ServerApp(self.wire, self.run_id, task_id, token)
        self._sides.append(asyncio.create_task(self._watch(beat_forever(self._beat))))
        await self.app.call("PullTaskInput", runtime.PullTaskInputRequest())
        self._sides.append(asyncio.create_task(self._watch(self._upload_forever())))
        self._main = asyncio.create_task(self._watch(self._rounds()))

    @property
    def app(self) -> ServerApp:
        """The calls of its process."""
        assert self._served is not None
        return self._served

    def print(self, line: str) -> None:
        """Print a line, which is uploaded as the run's log."""
        self.log += line + "\n"
        self._unsent.append(line + "\n")

    async def until_round(self, number: int, within: float = PATIENCE) -> None:
        """Wait until `number` rounds are complete."""
        async with asyncio.timeout(within), self._round_done:
            await self._round_done.wait_for(lambda: self.rounds >= number or self._is_over())
        assert self.rounds >= number, f"ended after {self.rounds} rounds: {self.death}"

    async def more_rounds(self, count: int, within: float = PATIENCE) -> None:
        """Wait until `count` more rounds are complete."""
        await self.until_round(self.rounds + count, within)

    async def until_heard(self, within: float = PATIENCE) -> None:
        """Wait until the server takes log lines.

        After an outage, a stock ServerApp keeps its lines for up to 20 s. It loses them if it ends.
        """
        before = self._uploads

        def is_heard() -> bool:
            return self._uploads > before or not (self._unsent or self._uploading)

        assert await _until(is_heard, within), "no lines are taken"

    async def until_sent(self, within: float = PATIENCE) -> None:
        """Wait until the server has taken all lines that were printed so far."""
        sent = await _until(lambda: not (self._unsent or self._uploading), within)
        assert sent, "lines are left"

    async def finish(self, within: float = PATIENCE) -> None:
        """Let the app finish its round and end. Like stock, it pushes its output only once."""
        self._enough.set()
        await self.until_end(within)

    async def until_end(self, within: float = PATIENCE) -> None:
        """Wait until the app has ended."""
        assert self._main is not None
        async with asyncio.timeout(within):
            await self._main

    async def kill(self) -> None:
        """Stop everything at once, as if the app's machine was lost."""
        tasks = [*self._sides, *([self._main] if self._main else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.wire.close()
        await self._control.close()

    def _is_over(self) -> bool:
        return self._main is not None and self._main.done()

    async def _watch(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as exc:
            self.death = self.death or exc
        finally:
            async with self._round_done:
                self._round_done.notify_all()

    async def _beat(self) -> None:
        answer = await self.app.call("SendTaskHeartbeat", runtime.SendTaskHeartbeatRequest())
        if not answer.success:
            raise ClientDied("task heartbeat refused")

    # Rounds

    async def _rounds(self) -> None:
        while not self._enough.is_set():
            began = time.monotonic()
            await self._round(self.rounds + 1)
            self.spans.append((began, time.monotonic()))
            async with self._round_done:
                self.rounds += 1
                self._round_done.notify_all()
            if self.rounds == self.limit:
                self._enough.set()
        await self._look_again()
        await self.before_last_line()
        self.print(f"result {self.value} after {self.rounds} rounds")
        await self._exit()

    async def _round(self, number: int) -> None:
        self.print(f"round {number} begins with {self.value}")
        content = app.question(number, self.value)
        parcels = [
            instruction(self.run_id, node.node_id, content, ttl=3600.0) for node in self.nodes
        ]
        await self._push(parcels)
        answers = await self._gather({one.message_id for one in parcels})
        for node, value in sorted(answers):
            self.print(f"round {number}: node {node} answered {value}")
        self.value = app.combine(answers)

    async def _push(self, parcels: Sequence[Parcel]) -> None:
        answer = await self.app.push(*parcels)
        objects = dict(itertools.chain(*(one.objects.items() for one in parcels)))
        assert list(answer.message_ids) == [one.message_id for one in parcels], "refused"

        async def push(object_id: str) -> None:
            stored = await self.app.push_object(answer.session_id, object_id, objects[object_id])
            if not stored:
                raise ClientDied(f"object {object_id} was not stored")

        wanted = set(answer.objects_to_push)
        await in_parallel([one for one in objects if one in wanted], push)
        self.pushed.update(answer.message_ids)

    async def _gather(self, wanted: set[str]) -> list[tuple[int, int]]:
        answers: list[tuple[int, int]] = []
        while True:
            for message in await self._pull(wanted):
                asked = message.metadata.reply_to_message_id
                self.outcomes[asked] += 1
                wanted.discard(asked)
                if message.has_error():
                    self.errors.append(f"{asked}: {message.error}")
                else:
                    answers.append(app.read_answer(message))
            if not wanted:
                return answers
            await asyncio.sleep(INCOMPLETE_SLEEP)

    async def _pull(self, wanted: set[str]) -> list[Message]:
        answer = await self.app.call(
            "PullMessages", runtime.PullAppMessagesRequest(message_ids=sorted(wanted))
        )
        messages = []
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            contents: dict[str, bytes] = {}

            async def pull(object_id: str, contents: dict[str, bytes] = contents) -> None:
                contents[object_id] = await when_available(object_id, self.app.pull_object)

            await in_parallel(object_ids(tree), pull)
            await self.app.confirm(proto.metadata.message_id)
            self._replies[proto.metadata.reply_to_message_id] = proto.metadata.message_id
            messages.append(inflate(proto.metadata.message_id, contents))
        return messages

    async def _look_again(self) -> None:
        """Ask for all replies again: none may differ from the first reply to its message."""
        answer = await self.app.call(
            "PullMessages", runtime.PullAppMessagesRequest(message_ids=sorted(self._replies))
        )
        for proto in answer.messages_list:
            asked, reply = proto.metadata.reply_to_message_id, proto.metadata.message_id
            is_unknown = proto.error.code == _UNKNOWN_MESSAGE
            if not is_unknown and reply != self._replies[asked]:
                self.seconds.append(f"{asked}: {reply} after {self._replies[asked]}")

    # The log, and the end

    async def _upload_forever(self) -> None:
        while True:
            await self._upload()
            await asyncio.sleep(_UPLOAD_INTERVAL)

    async def _upload(self) -> None:
        self._uploading, self._unsent = self._unsent, []
        if self._uploading:
            request = runtime.PushLogsRequest(
                node=common.Node(node_id=0), run_id=self.run_id, logs=self._uploading
            )
            await self.app.call("PushLogs", request)
            self._uploading = []
            self._uploads += 1

    async def _exit(self) -> None:
        forced_after = _FORCE_EXIT_SECONDS if self.wire.name == "http" else None
        with suppress(TimeoutError):
            async with asyncio.timeout(forced_after):
                await self._say_farewell()
        for side in self._sides:
            side.cancel()
        if forced_after is not None:
            await self.wire.close()

    async def _say_farewell(self) -> None:
        # Stock does not wait longer. Lines that are left may come after its output, or never.
        if await _until(lambda: not self._unsent, _FLUSH_SECONDS):
            await _until(lambda: not self._uploading, _LAST_UPLOAD_SECONDS)
        await self._push_output()
        await _until(lambda: not self._unsent + self._uploading, _FLUSH_SECONDS)

    async def _push_output(self) -> None:
        metadata = [("flwr-task-token", self.app.token)]
        request = runtime.PushTaskOutputRequest(sub_status="completed", details="")
        self.before_exit()
        try:
            await self.wire.call_once("Runtime", "PushTaskOutput", request, metadata)
        except Refused as exc:
            raise ClientDied(str(exc)) from exc


async def _nothing() -> None:
    """Do nothing."""


async def _until(condition: Callable[[], bool], within: float) -> bool:
    """Wait for a condition, at most `within` seconds; return whether it is true."""
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return condition()
