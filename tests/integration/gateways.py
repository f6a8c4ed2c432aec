"""A gateway for tests, called over gRPC as stock clients call it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import Message as ProtoMessage

from flower_nats.settings import GatewaySettings
from flower_nats.wire import appio_pb2 as appio
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.server import serve
from tests.integration.superlinks import Superlink, make_fab, running_superlink
from tests.messages import Parcel

M = TypeVar("M", bound=ProtoMessage)
Metadata = Sequence[tuple[str, str | bytes]]


def free_address() -> str:
    """An address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Edge(Protocol):
    """Whatever a client calls through."""

    async def call(
        self, service: str, method: str, request: ProtoMessage, metadata: Metadata = ()
    ) -> Any:
        """Call an RPC."""


@dataclass
class Gateway:
    """A running gateway, the superlink behind it, and a channel to each API."""

    superlink: Superlink
    settings: GatewaySettings
    stop: asyncio.Event
    running: asyncio.Task[None]
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    async def call_bytes(
        self, service: str, method: str, body: bytes, metadata: Metadata = (), timeout: float = 30
    ) -> bytes:
        """Call an RPC with any bytes."""
        multicallable: Any = self.channels[service].unary_unary(BY_NAME[(service, method)].path)
        answer = await multicallable(body, metadata=tuple(metadata), timeout=timeout)
        return cast(bytes, answer)

    async def call(
        self, service: str, method: str, request: ProtoMessage, metadata: Metadata = ()
    ) -> Any:
        """Call an RPC."""
        body = await self.call_bytes(service, method, request.SerializeToString(), metadata)
        return BY_NAME[(service, method)].response.FromString(body)

    async def node(self) -> SuperNode:
        """Connect a new SuperNode."""
        node = SuperNode(self)
        await node.call("RegisterNode", fleet.RegisterNodeFleetRequest(public_key=node.public_key))
        await node.activate()
        return node

    async def server_app(self) -> ServerApp:
        """Start a run and take its ServerApp task, as SuperExec and ServerApp do."""
        fab = common.Fab(content=make_fab())
        run = await self.call("Control", "StartRun", control.StartRunRequest(fab=fab))
        pending = await self.call(
            "ServerAppIo", "PullPendingTasks", appio.PullPendingTasksRequest()
        )
        [task] = [one for one in pending.tasks if one.run_id == run.run_id]
        claim = await self.call(
            "ServerAppIo", "ClaimTask", appio.ClaimTaskRequest(task_id=task.task_id)
        )
        app = ServerApp(self, run.run_id, task.task_id, claim.token)
        await app.call("PullTaskInput", appio.PullTaskInputRequest())
        return app


class SuperNode:
    """A node that speaks as stock SuperNodes do."""

    def __init__(self, gateway: Edge, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.gateway = gateway
        self.key = key or ec.generate_private_key(ec.SECP384R1())
        self.public_key = self.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        self.node_id = 0

    def metadata(self, offset: float = 0.0) -> list[tuple[str, str | bytes]]:
        """Sign a time that is `offset` seconds from now."""
        timestamp = (datetime.now(UTC) + timedelta(seconds=offset)).isoformat()
        signature = self.key.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))
        return [
            ("flwr-public-key-bin", self.public_key),
            ("flwr-timestamp", timestamp),
            ("flwr-signature-bin", signature),
        ]

    @property
    def node(self) -> common.Node:
        return common.Node(node_id=self.node_id)

    async def activate(self) -> None:
        request = fleet.ActivateNodeRequest(public_key=self.public_key, heartbeat_interval=30)
        self.node_id = (await self.call("ActivateNode", request)).node_id

    async def call(self, method: str, request: ProtoMessage, offset: float = 0.0) -> Any:
        return await self.gateway.call("Fleet", method, request, self.metadata(offset))

    async def pull(self) -> Any:
        """PullMessages: the message and its tree's bytes, or None."""
        answer = await self.call("PullMessages", fleet.PullMessagesRequest(node=self.node))
        if not answer.messages_list:
            return None
        return answer.messages_list[0], answer.message_object_trees[0]

    async def confirm(self, run_id: int, message_id: str) -> None:
        request = common.ConfirmMessageReceivedRequest(
            node=self.node, run_id=run_id, message_object_id=message_id
        )
        await self.call("ConfirmMessageReceived", request)

    async def push(self, one: Parcel) -> Any:
        """PushMessages alone."""
        request = fleet.PushMessagesRequest(
            node=self.node,
            messages_list=[one.proto],
            message_object_trees=[one.outgoing.tree],
        )
        return await self.call("PushMessages", request)

    async def push_object(
        self, run_id: int, session_id: str, object_id: str, content: bytes
    ) -> bool:
        request = common.PushObjectRequest(
            node=self.node,
            run_id=run_id,
            session_id=session_id,
            object_id=object_id,
            object_content=content,
        )
        return cast(bool, (await self.call("PushObject", request)).stored)

    async def send(self, one: Parcel) -> None:
        """A whole reply."""
        run_id = one.flwr.metadata.run_id
        answer = await self.push(one)
        for object_id in answer.objects_to_push:
            content = one.objects[object_id]
            assert await self.push_object(run_id, answer.session_id, object_id, content)

    async def pull_object(self, run_id: int, object_id: str) -> Any:
        request = common.PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id)
        return await self.call("PullObject", request)


@dataclass
class ServerApp:
    """A ServerApp process."""

    gateway: Edge
    run_id: int
    task_id: int
    token: str

    async def call(self, method: str, request: ProtoMessage, token: str | None = None) -> Any:
        metadata = [("flwr-task-token", self.token if token is None else token)]
        return await self.gateway.call("ServerAppIo", method, request, metadata)

    async def push(self, *parcels: Parcel) -> Any:
        """PushMessages alone."""
        request = appio.PushAppMessagesRequest(
            messages_list=[one.proto for one in parcels],
            message_object_trees=[one.outgoing.tree for one in parcels],
        )
        return await self.call("PushMessages", request)

    async def push_object(self, session_id: str, object_id: str, content: bytes) -> bool:
        request = common.PushObjectRequest(
            node=common.Node(node_id=1),
            run_id=self.run_id,
            session_id=session_id,
            object_id=object_id,
            object_content=content,
        )
        return cast(bool, (await self.call("PushObject", request)).stored)

    async def send(self, *parcels: Parcel) -> list[str]:
        """Whole instructions; returns the ids that the server gave back."""
        answer = await self.push(*parcels)
        objects = dict(itertools.chain(*(one.objects.items() for one in parcels)))
        for object_id in answer.objects_to_push:
            assert await self.push_object(answer.session_id, object_id, objects[object_id])
        return list(answer.message_ids)

    async def pull(self, *message_ids: str) -> list[common.Message]:
        answer = await self.call(
            "PullMessages", appio.PullAppMessagesRequest(message_ids=message_ids)
        )
        return list(answer.messages_list)

    async def pull_object(self, object_id: str) -> Any:
        request = common.PullObjectRequest(
            node=common.Node(node_id=1), run_id=self.run_id, object_id=object_id
        )
        return await self.call("PullObject", request)

    async def confirm(self, message_id: str) -> None:
        request = common.ConfirmMessageReceivedRequest(
            node=common.Node(node_id=1), run_id=self.run_id, message_object_id=message_id
        )
        await self.call("ConfirmMessageReceived", request)


@asynccontextmanager
async def running_gateway(
    superlink: Superlink, nats_url: str, **more: Any
) -> AsyncIterator[Gateway]:
    """Run a gateway in this process; it ends with the context."""
    settings = GatewaySettings(
        nats=(nats_url,),
        serverappio_api_address=free_address(),
        fleet_api_address=free_address(),
        control_api_address=free_address(),
        **more,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop))
    gateway = Gateway(superlink, settings, stop, running)
    for service, address in (
        ("ServerAppIo", settings.serverappio_api_address),
        ("Fleet", settings.fleet_api_address),
        ("Control", settings.control_api_address),
    ):
        channel = grpc.aio.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        gateway.channels[service] = channel
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(*(one.channel_ready() for one in gateway.channels.values()))
        yield gateway
    finally:
        stop.set()
        await running
        for channel in gateway.channels.values():
            await channel.close()


@asynccontextmanager
async def running_stack(
    nats_url: str, dsn: str, *, superlink: dict[str, Any] | None = None, **gateway: Any
) -> AsyncIterator[Gateway]:
    """Run a superlink and a gateway in this process; they end with the context."""
    async with (
        running_superlink(nats_url, dsn, **(superlink or {})) as worker,
        running_gateway(worker, nats_url, **gateway) as front,
    ):
        yield front
