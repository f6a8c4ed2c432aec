"""A gateway for tests, with clients that call it like stock clients over gRPC or HTTP."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.message import Message as ProtoMessage

from flower_nats.broker.permissions import User
from flower_nats.settings import GatewaySettings
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.process.gateway import serve
from harness.channels import (
    CHANNELS,
    Channel,
    GrpcChannel,
    HttpChannel,
    Metadata,
    Refused,
    WireName,
)
from harness.children import PATIENCE
from harness.clients import ServerApp, SuperNode
from harness.environment import accepts_connections, free_port
from harness.fabs import make_fab
from harness.logins import as_user
from tests.integration.superlinks import Superlink, running_superlink

BEFORE_THE_HOLD_ENDS = 15.0
"""Seconds. Without a wake, the gateway holds a call for about 20 s."""


def free_address() -> str:
    """Return a free address whose port no outgoing connection takes."""
    return f"127.0.0.1:{free_port()}"


async def refusal(call: Awaitable[Any]) -> Refused:
    """Expect that a call is refused, and return the refusal."""
    with pytest.raises(Refused) as caught:
        await call
    return caught.value


@dataclass(kw_only=True)
class Clients:
    """Clients of a gateway, over one wire: a channel to each API."""

    settings: GatewaySettings
    wire: WireName
    channels: dict[str, Channel] = field(init=False)

    def __post_init__(self) -> None:
        self.channels = {service: self.channel(service) for service in self.grpc_addresses}

    async def close(self) -> None:
        """Close the channels."""
        for channel in self.channels.values():
            await channel.close()

    def address(self, service: str) -> str:
        """Return the address of an API on this wire."""
        if self.wire == "http":
            return self.settings.http_api_address
        return self.grpc_addresses[service]

    @property
    def grpc_addresses(self) -> Mapping[str, str]:
        """The addresses for gRPC, by API."""
        return {
            "Runtime": self.settings.serverappio_api_address,
            "Fleet": self.settings.fleet_api_address,
            "Control": self.settings.control_api_address,
        }

    def channel(self, service: str) -> GrpcChannel | HttpChannel:
        """Return one more channel to an API, with its own connections; the caller closes it."""
        return CHANNELS[self.wire](self.address(service))

    async def call_bytes(
        self, service: str, method: str, body: bytes, metadata: Metadata = (), timeout: float = 30
    ) -> bytes:
        """Call an RPC with any bytes."""
        rpc = BY_NAME[(service, method)]
        return await self.channels[service].unary(rpc, body, metadata, timeout)

    async def call(
        self, service: str, method: str, request: ProtoMessage, metadata: Metadata = ()
    ) -> Any:
        """Call an RPC."""
        body = await self.call_bytes(service, method, request.SerializeToString(), metadata)
        return BY_NAME[(service, method)].response.FromString(body)

    async def follow(
        self, run_id: int, after: float = 0.0
    ) -> AsyncGenerator[control.StreamLogsResponse, None]:
        """Follow a log, like `flwr log --stream`."""
        request = control.StreamLogsRequest(run_id=run_id, after_timestamp=after)
        method, body = BY_NAME[("Control", "StreamLogs")], request.SerializeToString()
        async with aclosing(self.channels["Control"].stream(method, body, (), 30)) as answers:
            async for answer in answers:
                yield control.StreamLogsResponse.FromString(answer)

    async def log_of(self, run_id: int) -> str:
        """Return the log of a run that has ended, like `flwr log`."""
        return "".join([answer.log_output async for answer in self.follow(run_id)])

    async def in_hand(self) -> dict[str, int]:
        """Return the gateway's counts of held calls, and of all calls in hand."""
        url = f"http://{self.settings.http_health_address}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url, timeout=PATIENCE) as answer:
            text = answer.read().decode()
        found = re.findall(r"^flower_nats_(held_calls|calls_in_hand) (\d+)$", text, re.MULTILINE)
        return {name: int(value) for name, value in found}

    async def until_in_hand(self, calls: int) -> None:
        """Wait until so many calls are in hand, and all of them are held."""
        expected = {"held_calls": calls, "calls_in_hand": calls}
        async with asyncio.timeout(PATIENCE):
            while await self.in_hand() != expected:
                await asyncio.sleep(0.05)

    async def node(self) -> SuperNode:
        """Connect a new SuperNode."""
        node = SuperNode(self)
        await node.call("RegisterNode", fleet.RegisterNodeFleetRequest(public_key=node.public_key))
        await node.activate()
        return node

    async def server_app(self, **fields: Any) -> ServerApp:
        """Start a run and take its ServerApp task, like SuperExec and ServerApp."""
        request = control.StartRunRequest(fab=common.Fab(content=make_fab()), **fields)
        run = await self.call("Control", "StartRun", request)
        app = ServerApp(self, run.run_id, *await self._take_task(run.run_id))
        await app.call("PullTaskInput", runtime.PullTaskInputRequest())
        return app

    async def _take_task(self, run_id: int) -> tuple[int, str]:
        if self.wire == "http":
            request = runtime.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
            acquired = await self.call("Runtime", "AcquireTask", request)
            assert acquired.task.run_id == run_id, "another run was waiting"
            return acquired.task.task_id, acquired.token
        pending = await self.call("Runtime", "PullPendingTasks", runtime.PullPendingTasksRequest())
        [task] = [one for one in pending.tasks if one.run_id == run_id]
        claim = await self.call(
            "Runtime", "ClaimTask", runtime.ClaimTaskRequest(task_id=task.task_id)
        )
        return task.task_id, claim.token


@dataclass(kw_only=True)
class Gateway(Clients):
    """A running gateway, the superlink behind it, and its clients."""

    superlink: Superlink
    stop: asyncio.Event
    running: asyncio.Task[None]


@asynccontextmanager
async def running_gateway(
    superlink: Superlink, nats_url: str, wire: WireName = "grpc", **more: Any
) -> AsyncIterator[Gateway]:
    """Run a gateway in this process; it ends with the context."""
    settings = GatewaySettings(
        serverappio_api_address=free_address(),
        fleet_api_address=free_address(),
        control_api_address=free_address(),
        http_health_address=free_address(),
        **{
            "nats": (as_user(nats_url, User.GATEWAY),),
            "http_api_address": free_address(),
            **more,
        },
    )
    stop = asyncio.Event()
    running = asyncio.create_task(serve(settings, stop))
    gateway = Gateway(settings=settings, wire=wire, superlink=superlink, stop=stop, running=running)
    try:
        await _until_ready(gateway)
        yield gateway
    finally:
        stop.set()
        await running
        await gateway.close()


async def _until_ready(gateway: Gateway) -> None:
    def is_listening() -> bool:
        # The gateway listens on this address last.
        return accepts_connections(gateway.settings.http_api_address)

    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(is_listening):
            if gateway.running.done():
                gateway.running.result()
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running_stack(
    nats_url: str,
    dsn: str,
    wire: WireName = "grpc",
    *,
    superlink: dict[str, Any] | None = None,
    **gateway: Any,
) -> AsyncIterator[Gateway]:
    """Run a superlink and a gateway in this process; they end with the context."""
    async with (
        running_superlink(nats_url, dsn, **(superlink or {})) as worker,
        running_gateway(worker, nats_url, wire, **gateway) as front,
    ):
        yield front


@asynccontextmanager
async def running_pair(
    nats_url: str, dsn: str, wire: WireName = "grpc"
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Run a superlink and two gateways in this process; they end with the context."""
    async with (
        running_superlink(nats_url, dsn) as worker,
        running_gateway(worker, nats_url, wire) as one,
        running_gateway(worker, nats_url, wire) as other,
    ):
        yield one, other
