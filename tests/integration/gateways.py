"""A gateway for tests, called over gRPC as stock clients call it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message as ProtoMessage

from flower_nats.settings import GatewaySettings
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.process.gateway import serve
from tests.harness.clients import ServerApp, SuperNode
from tests.harness.fabs import make_fab
from tests.integration.superlinks import Superlink, running_superlink

M = TypeVar("M", bound=ProtoMessage)
Metadata = Sequence[tuple[str, str | bytes]]


def free_address() -> str:
    """An address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


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

    async def log_of(self, run_id: int) -> str:
        """`flwr log` of a run that has ended."""
        method = BY_NAME[("Control", "StreamLogs")]
        request = control.StreamLogsRequest(run_id=run_id)
        call: Any = self.channels["Control"].unary_stream(method.path)
        stream = call(request.SerializeToString(), timeout=20)
        answers = [control.StreamLogsResponse.FromString(one) async for one in stream]
        return "".join(answer.log_output for answer in answers)

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
        pending = await self.call("Runtime", "PullPendingTasks", runtime.PullPendingTasksRequest())
        [task] = [one for one in pending.tasks if one.run_id == run.run_id]
        claim = await self.call(
            "Runtime", "ClaimTask", runtime.ClaimTaskRequest(task_id=task.task_id)
        )
        app = ServerApp(self, run.run_id, task.task_id, claim.token)
        await app.call("PullTaskInput", runtime.PullTaskInputRequest())
        return app


@asynccontextmanager
async def running_gateway(
    superlink: Superlink, nats_url: str, **more: Any
) -> AsyncIterator[Gateway]:
    """Run a gateway in this process; it ends with the context."""
    settings = GatewaySettings(
        nats=(nats_url,),
        http_api_address=free_address(),
        serverappio_api_address=free_address(),
        fleet_api_address=free_address(),
        control_api_address=free_address(),
        **more,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop))
    gateway = Gateway(superlink, settings, stop, running)
    for service, address in (
        ("Runtime", settings.serverappio_api_address),
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


@asynccontextmanager
async def running_pair(nats_url: str, dsn: str) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Run a superlink and two gateways in this process; they end with the context."""
    async with (
        running_superlink(nats_url, dsn) as worker,
        running_gateway(worker, nats_url) as one,
        running_gateway(worker, nats_url) as other,
    ):
        yield one, other
