"""One simulated SuperNode, which makes the same Fleet API calls as stock flwr.

Derived from ``supernode/start_client_internal.py`` and ``supercore/inflatable`` of flwr 1.33 and
1.42, which do the same. The node's own work is left out: its ClientApp process, and the sleeps of
half a second while it waits for that process.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from benchmarks.fleet import MAX_RETRY_DELAY, FleetCalls, Key, Late, Refused, Tally, Wire
from benchmarks.payloads import Reply, ReplyContent, reply_content, reply_to
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.messages import object_ids

EMPTY_PULL_SLEEP = 3.0
"""Seconds that a SuperNode sleeps after a PullMessages call without a message."""

_HEARTBEAT_INTERVAL = 30.0
_HEARTBEAT_TIMEOUT = 5.0
_OBJECTS_AT_ONCE = 2
_UNAVAILABLE_DELAY = (1.0, 10.0)
_CALLS_BESIDE_OBJECTS = 6
_CALLS_OF_A_RETURN = 5
"""Enough for a heartbeat and a poll, with some retries."""

HELD_SECONDS = 3.0
"""The server holds a poll that it has neither answered nor turned away after this time."""


class SimulatedNode:
    """A SuperNode that answers every instruction at once with ``reply_size`` bytes of its own."""

    def __init__(
        self,
        wire: Callable[[bytes], Wire],
        reply_size: int,
        tally: Tally,
        *,
        verify: bool,
    ) -> None:
        self.node_id = 0
        self.polling = asyncio.Event()
        """Set once the node has asked for messages for the first time."""

        self._reply_size = reply_size
        self._tally = tally
        self._verify = verify
        self._key = Key()
        self._wire = wire
        self._fleet = self._connect()
        self._heard_at: float | None = None
        """When a heartbeat on these connections first had a good answer."""
        self._answered_at: float | None = None
        """When a poll on these connections was first answered."""
        self._runs: set[int] = set()
        self._prepared: ReplyContent | None = None

    def _connect(self) -> FleetCalls:
        return FleetCalls(self._wire(self._key.public), self._key, self._tally)

    async def join(self) -> None:
        """Register and activate."""
        key = self._key.public
        await self._fleet.call("RegisterNode", fleet.RegisterNodeFleetRequest(public_key=key))
        request = fleet.ActivateNodeRequest(public_key=key, heartbeat_interval=_HEARTBEAT_INTERVAL)
        response = await self._fleet.call("ActivateNode", request)
        self.node_id = response.node_id
        self._node = common.Node(node_id=self.node_id)

    def prepare(self) -> None:
        """Make the content of the next reply and the signatures of its calls in advance."""
        self._prepared = reply_content(self._reply_size)
        # The instruction has as many objects as the reply; each has a message object, too.
        objects = 2 * (len(self._prepared.objects) + 1)
        self._key.sign_ahead(objects + _CALLS_BESIDE_OBJECTS)

    def prepare_return(self) -> None:
        """Make the signatures of the first calls after a broken connection in advance."""
        self._key.sign_ahead(_CALLS_OF_A_RETURN)

    async def come_back(self, after: float) -> None:
        """Go on after this many seconds, on new connections."""
        self._fleet = self._connect()
        self._heard_at = self._answered_at = None
        await asyncio.sleep(after)
        await self.live(poll_within=0.0)

    def online_since(self, now: float) -> float | None:
        """Return the time since which it is online on these connections; None if it is not.

        An online node has a heartbeat with a good answer, and a poll that was answered or is held.
        """
        polled_at = self._answered_at
        if polled_at is None:
            asked_at = self._fleet.asked_at.get("PullMessages", now)
            polled_at = asked_at if now - asked_at >= HELD_SECONDS else None
        if polled_at is None or self._heard_at is None:
            return None
        return max(polled_at, self._heard_at)

    async def live(self, poll_within: float = EMPTY_PULL_SLEEP) -> None:
        """Heartbeat, pull, reply; until cancelled, or until an error that would end a stock node.

        Real nodes start at any time, but these start together, so the first poll comes at a random
        time within ``poll_within`` seconds.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._main_loop(poll_within))
                group.create_task(self._heartbeats())
        except* (Refused, Late) as exc:
            self._tally.errors.extend(repr(error)[:500] for error in exc.exceptions)
        finally:
            await self._fleet.close()

    async def _heartbeats(self) -> None:
        request = fleet.SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=_HEARTBEAT_INTERVAL
        )
        while True:
            await self._heartbeat(request)
            pause = (_HEARTBEAT_INTERVAL - _HEARTBEAT_TIMEOUT) * random.uniform(0.7, 0.9)
            await asyncio.sleep(pause)

    async def _heartbeat(self, request: fleet.SendNodeHeartbeatRequest) -> None:
        ceiling = 1.0
        while True:
            try:
                response = await self._fleet.call("SendNodeHeartbeat", request, _HEARTBEAT_TIMEOUT)
            except Late:
                self._tally.late_heartbeats += 1
                await asyncio.sleep(random.uniform(0, ceiling))
                ceiling = min(2 * ceiling, MAX_RETRY_DELAY)
                continue
            if not response.success:
                raise Refused(f"heartbeat of node {self.node_id} refused")
            self._heard_at = self._heard_at or time.monotonic()
            return

    async def _main_loop(self, poll_within: float) -> None:
        request = fleet.PullMessagesRequest(node=self._node)
        await asyncio.sleep(random.uniform(0, poll_within))
        self.polling.set()
        while True:
            response = await self._fleet.call("PullMessages", request)
            self._answered_at = self._answered_at or time.monotonic()
            if not response.messages_list:
                self._tally.empty_pulls += 1
                await asyncio.sleep(EMPTY_PULL_SLEEP)
                continue
            instruction = response.messages_list[0]
            if await self._receive(instruction, response.message_object_trees[0]):
                await self._reply(instruction)
            else:
                await asyncio.sleep(EMPTY_PULL_SLEEP)

    async def _receive(self, instruction: common.Message, tree: bytes) -> bool:
        run_id = instruction.metadata.run_id
        received = False
        try:
            if run_id not in self._runs:
                await self._get_run_and_fab(run_id)
            # As in a stock node's store, an object named twice is pulled once.
            wanted = object_ids(tree)
            await in_parallel(wanted, lambda object_id: self._pull_object(run_id, object_id))
            confirm = common.ConfirmMessageReceivedRequest(
                node=self._node, run_id=run_id, message_object_id=instruction.metadata.message_id
            )
            await self._fleet.call("ConfirmMessageReceived", confirm)
            received = True
        except* (Refused, LookupError) as exc:
            self._tally.errors.extend(repr(error)[:500] for error in exc.exceptions)
        return received

    async def _get_run_and_fab(self, run_id: int) -> None:
        run_request = common.GetRunRequest(node=self._node, run_id=run_id)
        run = (await self._fleet.call("GetRun", run_request)).run
        fab_request = common.GetFabRequest(node=self._node, hash_str=run.fab_hash, run_id=run_id)
        await self._fleet.call("GetFab", fab_request)
        self._runs.add(run_id)

    async def _pull_object(self, run_id: int, object_id: str) -> None:
        request = common.PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
        delay, longest = _UNAVAILABLE_DELAY
        while True:
            response = await self._fleet.call("PullObject", request)
            if not response.object_found:
                raise LookupError(f"object {object_id} not found")
            if response.object_available:
                break
            self._tally.waits += 1
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(2 * delay, longest)
        self._tally.bytes_pulled += len(response.object_content)
        if self._verify and hashlib.sha256(response.object_content).hexdigest() != object_id:
            raise LookupError(f"object {object_id} has other content")

    async def _reply(self, instruction: common.Message) -> None:
        content, self._prepared = self._prepared, None
        reply = reply_to(instruction, content or reply_content(self._reply_size))
        request = fleet.PushMessagesRequest(
            node=self._node,
            messages_list=[reply.message],
            message_object_trees=[reply.tree],
            clientapp_runtime_list=[0.0],
        )
        try:
            answer = await self._fleet.call("PushMessages", request)
            await self._push_objects(instruction.metadata.run_id, reply, answer)
        except* (Refused, LookupError) as exc:
            self._tally.errors.extend(repr(error)[:500] for error in exc.exceptions)

    async def _push_objects(self, run_id: int, reply: Reply, answer: Any) -> None:
        wanted = set(answer.objects_to_push)

        async def push(object_id: str) -> None:
            content = reply.objects[object_id]
            request = common.PushObjectRequest(
                node=self._node,
                run_id=run_id,
                object_id=object_id,
                object_content=content,
                session_id=answer.session_id,
            )
            response = await self._fleet.call("PushObject", request)
            if not response.stored:
                raise LookupError(f"object {object_id} was not stored")
            self._tally.bytes_pushed += len(content)

        await in_parallel([item for item in reply.objects if item in wanted], push)


async def in_parallel(items: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Do ``work`` for every item in order, two at a time, as a stock node moves objects."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(_OBJECTS_AT_ONCE):
            group.create_task(worker())
