"""A gateway that ends: whoever calls it at that moment hears what makes stock clients call again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
import grpc.aio

from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from tests.integration.gateways import running_stack

CALLERS = 16
FRESH = [("grpc.use_local_subchannel_pool", 1)]
"""A connection of its own for each channel."""


async def call_until_refused(address: str) -> grpc.StatusCode:
    method = BY_NAME[("Control", "ListFederations")]
    body = control.ListFederationsRequest().SerializeToString()
    async with grpc.aio.insecure_channel(address, options=FRESH) as channel:
        call: Any = channel.unary_unary(method.path)
        while True:
            try:
                await call(body)
            except grpc.aio.AioRpcError as exc:
                return exc.code()


async def test_callers_that_never_pause_hear_unavailable_and_nothing_else(
    nats_url: str, pg_dsn: str
) -> None:
    async with running_stack(nats_url, pg_dsn) as gateway:
        address = gateway.settings.control_api_address
        callers = [asyncio.create_task(call_until_refused(address)) for _ in range(CALLERS)]
        await gateway.call("Control", "ListFederations", control.ListFederationsRequest())

        gateway.stop.set()
        heard = Counter(await asyncio.gather(*callers))

    assert heard == {grpc.StatusCode.UNAVAILABLE: CALLERS}


async def test_nobody_who_is_quiet_delays_its_end(nats_url: str, pg_dsn: str) -> None:
    async with running_stack(nats_url, pg_dsn) as gateway:
        await gateway.call("Control", "ListFederations", control.ListFederationsRequest())

        gateway.stop.set()
        async with asyncio.timeout(4):
            await gateway.running
