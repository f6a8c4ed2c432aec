"""A gateway that ends answers callers of that moment so that stock clients call again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
import grpc.aio

from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from harness.channels import Channel, Refused, WireName
from harness.children import PATIENCE
from harness.raw_http import connect, head_of
from tests.integration.gateways import Gateway, running_stack

CALLERS = 16
METHOD = BY_NAME[("Control", "ListFederations")]
FRESH = [("grpc.use_local_subchannel_pool", 1)]
"""Options that give each channel its own connection."""


async def call_until_refused(channel: Channel) -> Outcome | None:
    try:
        while True:
            await channel.unary(METHOD, b"")
    except Refused as exc:
        return exc.outcome
    finally:
        await channel.close()


async def test_callers_that_never_pause_hear_unavailable_and_nothing_else(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        callers = [
            asyncio.create_task(call_until_refused(gateway.channel("Control")))
            for _ in range(CALLERS)
        ]
        await gateway.call("Control", "ListFederations", control.ListFederationsRequest())

        gateway.stop.set()
        heard = Counter(await asyncio.gather(*callers))

    assert heard == {Outcome.UNAVAILABLE: CALLERS}


async def test_nobody_who_is_quiet_delays_its_end(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        await gateway.call("Control", "ListFederations", control.ListFederationsRequest())
        silent = await connect(gateway.settings.http_api_address)

        gateway.stop.set()
        async with silent, asyncio.timeout(PATIENCE):
            await gateway.running
            # A stock client gives up for good if its TLS handshake ends in good order.
            assert await silent.until_closed() == "reset"


async def test_a_call_whose_request_is_still_on_its_way_is_served(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    """For example, `flwr run` of a large app over a slow line does not try again."""
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        way = slow_call_over_http if wire == "http" else slow_call_over_grpc

        answer = await way(gateway)

        assert control.ListFederationsResponse.FromString(answer).federations


async def slow_call_over_http(gateway: Gateway) -> bytes:
    address = gateway.settings.http_api_address
    # An unknown field makes a body, for which the gateway has to wait.
    body = b"\xfa\x3e\x03new"
    async with await connect(address) as slow, await connect(address) as idle:
        await slow.send(head_of("Control", "ListFederations", (), len(body)), body[:2])
        await idle.send(head_of("Control", "ListFederations", (), 0))
        assert (await idle.answer()).status == 200

        gateway.stop.set()
        await idle.until_closed()
        await slow.send(body[2:])

        answer = await slow.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        return answer.body


async def slow_call_over_grpc(gateway: Gateway) -> bytes:
    address = gateway.address("Control")
    async with (
        grpc.aio.insecure_channel(address, options=FRESH) as channel,
        grpc.aio.insecure_channel(address, options=FRESH) as idle,
    ):
        # On the wire a stream of one message is the same as one message.
        slow: Any = channel.stream_unary(METHOD.path)()
        await slow.wait_for_connection()
        for one in (channel, idle):
            quick: Any = one.unary_unary(METHOD.path)
            await quick(b"")

        gateway.stop.set()
        async with asyncio.timeout(PATIENCE):
            await idle.wait_for_state_change(grpc.ChannelConnectivity.READY)
        await slow.write(b"")
        await slow.done_writing()
        answer: bytes = await slow
        return answer
