"""Held calls end when their client disconnects, and leave nothing in the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from harness.channels import Metadata, WireName
from harness.children import PATIENCE
from harness.clients import ServerApp, SuperNode
from harness.frames import PREFACE, Frames
from harness.messages import instruction
from tests.integration.gateways import Gateway, running_stack

HELD = 6
"""Calls of `wait_for_everything`."""


@pytest.fixture
async def gateway(nats_url: str, pg_dsn: str, wire: WireName) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


class Client:
    """Clients with their own connection to each API, which the test can break."""

    def __init__(self, gateway: Gateway) -> None:
        self._channels = {
            service: gateway.channel(service) for service in ("Fleet", "Runtime", "Control")
        }
        self._calls: list[asyncio.Task[Any]] = []

    def call(self, path: str, request: Any, metadata: Metadata) -> None:
        """Begin a call, which the gateway holds."""
        service, _, name = path.partition(".")
        method, channel = BY_NAME[(service, name)], self._channels[service]
        body = request.SerializeToString()

        async def wait() -> None:
            if method.streams:
                await anext(channel.stream(method, body, metadata))
            else:
                await channel.unary(method, body, metadata)

        self._calls.append(asyncio.create_task(wait()))

    async def cancel(self) -> None:
        """Cancel all calls; this keeps connections over gRPC, and ends those over HTTP."""
        for call in self._calls:
            call.cancel()

    async def hang_up(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(one.close() for one in self._channels.values()))
        await asyncio.gather(*self._calls, return_exceptions=True)


async def announced_object(app: ServerApp, node: SuperNode) -> tuple[str, str]:
    """Push an instruction without its objects; return its id and that of a missing object."""
    question = instruction(app.run_id, node.node_id)
    [first, *_] = (await app.push(question)).objects_to_push
    return question.message_id, first


async def wait_for_everything(gateway: Gateway, client: Client) -> None:
    """Make every call that a gateway holds while it has no answer."""
    node, app = await gateway.node(), await gateway.server_app()
    message_id, object_id = await announced_object(app, node)
    token = [("flwr-task-token", app.token)]
    follow = control.StreamLogsRequest(run_id=app.run_id)
    server = common.Node(node_id=1)
    wanted = common.PullObjectRequest(node=server, run_id=app.run_id, object_id=object_id)
    client.call("Fleet.PullMessages", fleet.PullMessagesRequest(node=node.node), node.metadata())
    client.call("Runtime.PullObject", wanted, token)
    replies = runtime.PullAppMessagesRequest(message_ids=[message_id])
    client.call("Runtime.PullMessages", replies, token)
    client.call("Runtime.PullPendingTasks", runtime.PullPendingTasksRequest(), [])
    acquire = runtime.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
    client.call("Runtime.AcquireTask", acquire, [])
    client.call("Control.StreamLogs", follow, [])


@pytest.mark.parametrize("leave", [Client.cancel, Client.hang_up], ids=["cancel", "hang up"])
async def test_held_calls_end_with_their_clients(
    gateway: Gateway, leave: Callable[[Client], Awaitable[None]]
) -> None:
    client = Client(gateway)
    await wait_for_everything(gateway, client)
    await gateway.until_in_hand(HELD)

    await leave(client)

    await gateway.until_in_hand(0)
    await client.hang_up()


@pytest.mark.parametrize("wire", ["grpc"], indirect=True)
async def test_a_balancer_may_ping_as_often_as_it_likes(gateway: Gateway) -> None:
    """By default gRPC ends the connection of a frequent pinger, with all its held calls."""
    settings, ping, go_away, acknowledged = 4, 6, 7, 1
    host, _, port = gateway.settings.fleet_api_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    one = bytes([0, 0, 8, ping, 0]) + bytes(4) + b"12345678"

    writer.write(PREFACE + bytes([0, 0, 0, settings, 0]) + bytes(4))
    frames = Frames().of(reader)
    answers: list[tuple[int, int]] = []
    async with asyncio.timeout(PATIENCE):
        for number in range(10):
            writer.write(one)
            while answers.count((ping, acknowledged)) <= number:
                frame = await anext(frames)
                answers.append((frame.kind, frame.flags))

    assert go_away not in [kind for kind, _ in answers]
    writer.close()
