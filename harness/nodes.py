"""SuperNodes that call as stock ones do (flwr 1.33, 1.42 `supernode/start_client_internal.py`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.messages import object_ids
from harness import app
from harness.children import PATIENCE
from harness.clients import SuperNode
from harness.messages import inflate, parcel
from harness.wire import (
    ClientDied,
    RunNotRunning,
    Wire,
    beat_forever,
    in_parallel,
    when_available,
)

EMPTY_PULL_SLEEP = 3.0
HEARTBEAT_INTERVAL = 30.0
_HEARTBEAT_TIMEOUT = 5.0


class Node(Protocol):
    """A SuperNode of a trial, simulated or real."""

    number: int
    node_id: int

    @property
    def losses(self) -> list[str]:
        """Messages that the node has given up."""

    @property
    def death(self) -> Exception | None:
        """The error that ended the node; None while it lives."""

    async def kill(self) -> None:
        """End the node without any further call."""


class StockNode(SuperNode):
    """A simulated SuperNode with a number, which answers the app's instructions."""

    def __init__(
        self, number: int, wire: Wire, key: ec.EllipticCurvePrivateKey | None = None
    ) -> None:
        super().__init__(wire, key)
        self.number = number
        self.wire = wire
        self.death: Exception | None = None
        """The error with which a stock SuperNode would have ended."""
        self.losses: list[str] = []
        """Replies that a stock SuperNode would have given up."""
        self.confirmed: list[str] = []
        self.thinking = asyncio.Event()
        """While it is clear, the ClientApp is busy."""
        self.thinking.set()
        self._runs: set[int] = set()
        self.work_seconds = 0.0
        """How long the ClientApp takes for one message."""
        self._tasks: list[asyncio.Task[None]] = []

    async def get_busy(self, within: float = PATIENCE) -> str:
        """Wait for the next instruction, and keep the ClientApp busy with it; return its id."""
        self.thinking.clear()
        received = len(self.confirmed)
        async with asyncio.timeout(within):
            while len(self.confirmed) == received:
                await asyncio.sleep(0.02)
        return self.confirmed[-1]

    async def join(self) -> None:
        """Register, activate, and begin to work."""
        request = fleet.RegisterNodeFleetRequest(public_key=self.public_key)
        await self.call("RegisterNode", request)
        await self.come_online()

    async def come_online(self) -> None:
        """Activate with a registered key, and begin to work."""
        await self.activate()
        for work in (beat_forever(self._beat), self._main_loop()):
            self._tasks.append(asyncio.create_task(self._watch(work)))

    async def kill(self) -> None:
        """Stop at once and without any further call, as after `kill -9`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.wire.close()

    async def leave(self) -> None:
        """Deactivate, unregister and end."""
        await self.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=self.node_id))
        await self.call("UnregisterNode", fleet.UnregisterNodeFleetRequest(node_id=self.node_id))
        await self.kill()

    async def _watch(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as exc:
            self.death = exc

    async def _beat(self) -> None:
        request = fleet.SendNodeHeartbeatRequest(
            node=self.node, heartbeat_interval=HEARTBEAT_INTERVAL
        )
        answer = await self.wire.call(
            "Fleet", "SendNodeHeartbeat", request, self.metadata(), _HEARTBEAT_TIMEOUT
        )
        if not answer.success:
            raise ClientDied("heartbeat refused")

    async def _main_loop(self) -> None:
        while True:
            pulled = await self.pull()
            instruction = None
            if pulled is not None:
                instruction = await self._receive(*pulled)
            if instruction is None:
                await asyncio.sleep(EMPTY_PULL_SLEEP)
                continue
            await self.thinking.wait()
            await asyncio.sleep(self.work_seconds)
            await self._reply(instruction)

    async def _receive(self, message: common.Message, tree: bytes) -> Message | None:
        run_id = message.metadata.run_id
        message_id = message.metadata.message_id
        contents: dict[str, bytes] = {}

        async def pull(object_id: str) -> None:
            contents[object_id] = await when_available(
                object_id, lambda one: self.pull_object(run_id, one)
            )

        try:
            if run_id not in self._runs:
                await self.call("GetRun", common.GetRunRequest(node=self.node, run_id=run_id))
                self._runs.add(run_id)
            await in_parallel(object_ids(tree), pull)
            await self.confirm(run_id, message_id)
        except RunNotRunning:
            return None
        except (ClientDied, LookupError) as exc:
            self.losses.append(f"instruction {message_id}: {exc!r}")
            return None
        self.confirmed.append(message_id)
        whole = inflate(message_id, contents)
        whole.metadata.__dict__["_message_id"] = message_id
        return whole

    async def _reply(self, instruction: Message) -> None:
        run_id = instruction.metadata.run_id
        content = app.answer(instruction, self.number)
        one = parcel(Message(content, reply_to=instruction), run_id, self.node_id)
        try:
            answer = await self.push(one)

            async def push(object_id: str) -> None:
                content = one.objects[object_id]
                if not await self.push_object(run_id, answer.session_id, object_id, content):
                    raise LookupError(f"object {object_id} was not stored")

            wanted = set(answer.objects_to_push)
            await in_parallel([item for item in one.objects if item in wanted], push)
        except RunNotRunning:
            return
        except (ClientDied, LookupError) as exc:
            self.losses.append(f"reply to {instruction.metadata.message_id}: {exc!r}")


@contextlib.asynccontextmanager
async def leaving(nodes: list[StockNode]) -> AsyncIterator[None]:
    """Let nodes leave when the context ends well; otherwise kill them."""
    try:
        yield
    except BaseException:
        await asyncio.gather(*(node.kill() for node in nodes))
        raise
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(node.leave() for node in nodes))
