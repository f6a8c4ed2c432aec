"""A caller that reaches a runtime's ports without any key, token or secret of others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from harness.channels import CHANNELS, Channel, Metadata, Refused, WireName
from harness.clients import SuperNode
from harness.flower import Addresses

_SECONDS = 30.0
"""Seconds within which a stranger's call is served or refused."""


class Stranger:
    """A stranger that calls over one wire."""

    def __init__(self, addresses: Addresses, wire: WireName) -> None:
        self.addresses = addresses
        self.wire = wire
        self._open: list[Channel] = []

    def address(self, api: str) -> str:
        """Return the address of an API."""
        if self.wire == "http":
            return self.addresses.http
        grpc = self.addresses
        return {"Fleet": grpc.fleet, "Control": grpc.control, "Runtime": grpc.serverappio}[api]

    def channel(self, api: str) -> Channel:
        """Return one more channel to an API."""
        channel = CHANNELS[self.wire](self.address(api))
        self._open.append(channel)
        return channel

    async def call(
        self, service: str, method: str, request: ProtoMessage, metadata: Metadata = ()
    ) -> Any:
        """Call an RPC. Raises `Refused`."""
        rpc = BY_NAME[(service, method)]
        channel = self.channel(service)
        try:
            body = request.SerializeToString()
            return rpc.response.FromString(await channel.unary(rpc, body, metadata, _SECONDS))
        finally:
            await channel.close()

    async def node(self) -> SuperNode:
        """Register the stranger's own SuperNode: anybody may do this."""
        node = SuperNode(self)
        await node.call("RegisterNode", fleet.RegisterNodeFleetRequest(public_key=node.public_key))
        await node.activate()
        return node

    async def list_runs_at_once(self, calls: int, channels: int) -> Counter[str]:
        """Make so many ListRuns calls at the same moment; count the outcomes."""
        method, body = BY_NAME[("Control", "ListRuns")], control.ListRunsRequest()
        open_ = [self.channel("Control") for _ in range(channels)]
        asked = [
            outcome_of(open_[number % channels].unary(method, body.SerializeToString()))
            for number in range(calls)
        ]
        heard = Counter(await asyncio.gather(*asked))
        await asyncio.gather(*(one.close() for one in open_))
        return heard

    async def close(self) -> None:
        """Close all channels."""
        await asyncio.gather(*(one.close() for one in self._open))


async def outcome_of(call: Awaitable[object]) -> str:
    """Return the outcome for the caller: `OK`, or the name of a refusal."""
    try:
        await call
    except Refused as exc:
        return exc.outcome.name if exc.outcome else exc.text
    except TimeoutError:
        return "TIMEOUT"
    return "OK"


Attack = Callable[[Stranger], Awaitable[None]]
