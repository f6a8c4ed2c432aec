"""One simulated SuperNode: what stock flwr 1.33.0 does on the Fleet API, call for call.

Read off ``client/grpc_rere_client`` and ``supernode/start_client_internal.py`` of the flwr 1.33.0
wheel. What is left out is the node's own work: its ClientApp process, and the sleeps of half a
second in which it waits for that process.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.proto.node_pb2 import Node
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

from benchmarks.payloads import Reply, ReplyContent, reply_content, reply_to

EMPTY_PULL_SLEEP = 3.0
"""Seconds a SuperNode sleeps after a PullMessages that brought nothing."""

_HEARTBEAT_INTERVAL = 30.0
_HEARTBEAT_TIMEOUT = 5.0
_OBJECTS_AT_ONCE = 2
_MAX_RETRY_DELAY = 20.0
_SIGNATURE_SECONDS = 200.0
"""How long a signature made ahead is used; servers take it for 305 s."""

_CALLS_BESIDE_OBJECTS = 6
_UNAVAILABLE_DELAY = (1.0, 10.0)
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # Without its own pool, gRPC would put all nodes on one TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_VERSION_METADATA = RuntimeVersionMetadata.from_local_component("SuperNode")

_RESPONSES: dict[str, Any] = {
    "RegisterNode": fleet_pb2.RegisterNodeFleetResponse,
    "ActivateNode": fleet_pb2.ActivateNodeResponse,
    "SendNodeHeartbeat": heartbeat_pb2.SendNodeHeartbeatResponse,
    "PullMessages": fleet_pb2.PullMessagesResponse,
    "PushMessages": fleet_pb2.PushMessagesResponse,
    "GetRun": run_pb2.GetRunResponse,
    "GetFab": fab_pb2.GetFabResponse,
    "PullObject": message_pb2.PullObjectResponse,
    "PushObject": message_pb2.PushObjectResponse,
    "ConfirmMessageReceived": message_pb2.ConfirmMessageReceivedResponse,
}


@dataclass
class Tally:
    """What all nodes of a generator did so far."""

    calls: Counter[str] = field(default_factory=Counter)
    """RPCs by method."""

    empty_pulls: int = 0
    """PullMessages that brought nothing, each followed by a sleep."""

    retries: int = 0
    """Calls repeated after UNAVAILABLE."""

    waits: int = 0
    """Objects found announced but not yet available, each followed by a back-off."""

    bytes_pulled: int = 0
    bytes_pushed: int = 0
    errors: list[str] = field(default_factory=list)
    """What no stock node would have met in a healthy federation."""


_Signature = tuple[tuple[str, str], tuple[str, bytes]]


class FleetCalls:
    """The Fleet API over a channel of one node's own, every call with a signature of its own.

    A call is signed when it is made, unless ``sign_ahead`` left a signature to use: on machines of
    their own, nodes would not take the CPU for that from the server.
    """

    def __init__(self, address: str, tally: Tally) -> None:
        self._key, public_key = generate_key_pairs()
        self.public_key: bytes = public_key_to_bytes(public_key)
        self._constant = (
            *_VERSION_METADATA.append_to_grpc_metadata(None),
            ("flwr-public-key-bin", self.public_key),
        )
        self._signed: list[_Signature] = []
        self._signed_at = 0.0
        self._tally = tally
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            name: self._channel.unary_unary(
                f"/flwr.proto.Fleet/{name}", response_deserializer=response.FromString
            )
            for name, response in _RESPONSES.items()
        }

    def sign_ahead(self, calls: int) -> None:
        """Make the signatures of the next ``calls`` calls now; each is used once."""
        self._signed = [self._sign() for _ in range(calls)]
        self._signed_at = time.monotonic()

    def _sign(self) -> _Signature:
        timestamp: str = now().isoformat()
        signature = self._key.sign(timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        return ("flwr-timestamp", timestamp), ("flwr-signature-bin", signature)

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        ahead = self._signed and time.monotonic() - self._signed_at < _SIGNATURE_SECONDS
        return (*self._constant, *(self._signed.pop() if ahead else self._sign()))

    async def call(self, method: str, request: bytes, timeout: float | None = None) -> Any:
        """Call ``method`` with a serialized request, for as long as the server is unavailable."""
        ceiling = 1.0
        while True:
            self._tally.calls[method] += 1
            try:
                return await self._methods[method](
                    request, metadata=self._metadata(), timeout=timeout
                )
            except grpc.aio.AioRpcError as exc:
                if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            self._tally.retries += 1
            await asyncio.sleep(random.uniform(0, ceiling))
            ceiling = min(2 * ceiling, _MAX_RETRY_DELAY)

    async def close(self) -> None:
        await self._channel.close()


class SimulatedNode:
    """A SuperNode that answers every instruction at once with ``reply_size`` bytes of its own."""

    def __init__(self, address: str, reply_size: int, tally: Tally, *, verify: bool) -> None:
        self.node_id = 0
        self.polling = asyncio.Event()
        """Set once it has asked for messages for the first time."""

        self._reply_size = reply_size
        self._tally = tally
        self._verify = verify
        self._fleet = FleetCalls(address, tally)
        self._runs: set[int] = set()
        self._prepared: ReplyContent | None = None

    async def join(self) -> None:
        """Register and activate."""
        key = self._fleet.public_key
        await self._fleet.call(
            "RegisterNode", fleet_pb2.RegisterNodeFleetRequest(public_key=key).SerializeToString()
        )
        request = fleet_pb2.ActivateNodeRequest(
            public_key=key, heartbeat_interval=_HEARTBEAT_INTERVAL
        )
        response = await self._fleet.call("ActivateNode", request.SerializeToString())
        self.node_id = response.node_id
        self._node = Node(node_id=self.node_id)

    def prepare(self) -> None:
        """Make the content of the next reply and its calls' signatures ahead of the exchange."""
        self._prepared = reply_content(self._reply_size)
        # The instruction is made like the reply, and each has a message object to its content.
        objects = 2 * (len(self._prepared.objects) + 1)
        self._fleet.sign_ahead(objects + _CALLS_BESIDE_OBJECTS)

    async def live(self) -> None:
        """Heartbeat, pull, reply; until cancelled, or until what would end a stock node."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._heartbeats())
                group.create_task(self._main_loop())
        except* grpc.aio.AioRpcError as exc:
            self._tally.errors.extend(repr(error)[:500] for error in exc.exceptions)
        finally:
            await self._fleet.close()

    async def _heartbeats(self) -> None:
        request = heartbeat_pb2.SendNodeHeartbeatRequest(
            node=self._node, heartbeat_interval=_HEARTBEAT_INTERVAL
        ).SerializeToString()
        while True:
            response = await self._fleet.call("SendNodeHeartbeat", request, _HEARTBEAT_TIMEOUT)
            if not response.success:
                self._tally.errors.append(f"heartbeat of node {self.node_id} refused")
            pause = (_HEARTBEAT_INTERVAL - _HEARTBEAT_TIMEOUT) * random.uniform(0.7, 0.9)
            await asyncio.sleep(pause)

    async def _main_loop(self) -> None:
        request = fleet_pb2.PullMessagesRequest(node=self._node).SerializeToString()
        # Real nodes start at any time; these start together, so their polls are spread by hand.
        await asyncio.sleep(random.uniform(0, EMPTY_PULL_SLEEP))
        self.polling.set()
        while True:
            response = await self._fleet.call("PullMessages", request)
            if not response.messages_list:
                self._tally.empty_pulls += 1
                await asyncio.sleep(EMPTY_PULL_SLEEP)
                continue
            instruction = response.messages_list[0]
            if await self._receive(instruction, response.message_object_trees[0]):
                await self._reply(instruction)
            else:
                await asyncio.sleep(EMPTY_PULL_SLEEP)

    async def _receive(self, instruction: Any, tree: Any) -> bool:
        run_id = instruction.metadata.run_id
        received = False
        try:
            if run_id not in self._runs:
                await self._get_run_and_fab(run_id)
            # As a stock node's store does: an object named twice is pulled once.
            object_ids = dict.fromkeys(item.object_id for item in iterate_object_tree(tree))
            await in_parallel(object_ids, lambda object_id: self._pull_object(run_id, object_id))
            confirm = message_pb2.ConfirmMessageReceivedRequest(
                node=self._node, run_id=run_id, message_object_id=instruction.metadata.message_id
            )
            await self._fleet.call("ConfirmMessageReceived", confirm.SerializeToString())
            received = True
        except* (grpc.aio.AioRpcError, LookupError) as exc:
            self._tally.errors.extend(repr(error)[:500] for error in exc.exceptions)
        return received

    async def _get_run_and_fab(self, run_id: int) -> None:
        run_request = run_pb2.GetRunRequest(node=self._node, run_id=run_id)
        run = (await self._fleet.call("GetRun", run_request.SerializeToString())).run
        fab_request = fab_pb2.GetFabRequest(node=self._node, hash_str=run.fab_hash, run_id=run_id)
        await self._fleet.call("GetFab", fab_request.SerializeToString())
        self._runs.add(run_id)

    async def _pull_object(self, run_id: int, object_id: str) -> None:
        request = message_pb2.PullObjectRequest(
            node=self._node, run_id=run_id, object_id=object_id
        ).SerializeToString()
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

    async def _reply(self, instruction: Any) -> None:
        content, self._prepared = self._prepared, None
        reply = reply_to(instruction, content or reply_content(self._reply_size))
        request = fleet_pb2.PushMessagesRequest(
            node=self._node,
            messages_list=[reply.message],
            message_object_trees=[reply.tree],
            clientapp_runtime_list=[0.0],
        )
        try:
            answer = await self._fleet.call("PushMessages", request.SerializeToString())
            await self._push_objects(instruction.metadata.run_id, reply, answer)
        except* (grpc.aio.AioRpcError, LookupError) as exc:
            self._tally.errors.extend(repr(error)[:500] for error in exc.exceptions)

    async def _push_objects(self, run_id: int, reply: Reply, answer: Any) -> None:
        wanted = set(answer.objects_to_push)

        async def push(object_id: str) -> None:
            content = reply.objects[object_id]
            request = message_pb2.PushObjectRequest(
                node=self._node,
                run_id=run_id,
                object_id=object_id,
                object_content=content,
                session_id=answer.session_id,
            )
            response = await self._fleet.call("PushObject", request.SerializeToString())
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
