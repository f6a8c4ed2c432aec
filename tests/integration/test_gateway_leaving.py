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


async def test_a_call_whose_request_is_still_on_its_way_is_served(
    nats_url: str, pg_dsn: str
) -> None:
    """Such as `flwr run` of a large app over a slow line, which does not try again."""
    method = BY_NAME[("Control", "ListFederations")]
    request = control.ListFederationsRequest()
    async with running_stack(nats_url, pg_dsn) as gateway:
        address = gateway.settings.control_api_address
        async with (
            grpc.aio.insecure_channel(address, options=FRESH) as channel,
            grpc.aio.insecure_channel(address, options=FRESH) as idle,
        ):
            # On the wire a stream of one message is the same as one message.
            slow: Any = channel.stream_unary(method.path)()
            await slow.wait_for_connection()
            for one in (channel, idle):
                quick: Any = one.unary_unary(method.path)
                await quick(request.SerializeToString())

            gateway.stop.set()
            async with asyncio.timeout(10):
                await idle.wait_for_state_change(grpc.ChannelConnectivity.READY)
            await slow.write(request.SerializeToString())
            await slow.done_writing()

            assert control.ListFederationsResponse.FromString(await slow).federations
