"""Log streams behind a balancer with a relay: one stream, whatever becomes of the gateways."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.transports.log_relay import LogRelay
from tests.harness.clients import ServerApp
from tests.integration.gateways import Gateway, free_address, running_pair

STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]
SECONDS = 30.0
OUTPUT = runtime.PushTaskOutputRequest(sub_status="completed")


@dataclass
class Front:
    """Two gateways, and a channel to both through the balancer."""

    first: Gateway
    second: Gateway
    channel: grpc.aio.Channel
    balancer: Balancer

    def follow(self, run_id: int) -> Any:
        """Call StreamLogs."""
        stream: Any = self.channel.unary_stream(
            STREAM_LOGS.path, response_deserializer=STREAM_LOGS.response.FromString
        )
        request = control.StreamLogsRequest(run_id=run_id).SerializeToString()
        # Its own channel may not have noticed yet that the balancer is back.
        return stream(request, timeout=SECONDS, wait_for_ready=True)


@asynccontextmanager
async def front(directory: Path, nats_url: str, dsn: str) -> AsyncIterator[Front]:
    """Run it all."""
    listen, relay_address, relayed = free_address(), free_address(), free_address()
    async with running_pair(nats_url, dsn) as (first, second):
        gateways = [one.settings.control_api_address for one in (first, second)]
        relay = LogRelay(relay_address, gateways=relayed)
        apis = Api("control", listen, gateways, None).with_log_relay(relay_address, relayed)
        balancer = Balancer(directory, apis)
        async with grpc.aio.insecure_channel(listen) as channel:
            try:
                await relay.start()
                await balancer.start()
                yield Front(first, second, channel, balancer)
            finally:
                await balancer.stop()
                await relay.stop()


async def say(app: ServerApp, line: str) -> None:
    await app.call("PushLogs", runtime.PushLogsRequest(logs=[line]))


async def heard(stream: Any) -> str:
    answer = await stream.read()
    assert answer is not grpc.aio.EOF
    return str(answer.log_output)


async def test_a_stream_goes_on_from_answer_to_answer_to_the_end_of_the_run(
    tmp_path: Path, nats_url: str, pg_dsn: str
) -> None:
    async with front(tmp_path, nats_url, pg_dsn) as there:
        app = await there.first.server_app()
        stream = there.follow(app.run_id)
        for number in range(20):
            await say(app, f"line {number}\n")
            assert await heard(stream) == f"line {number}\n"
        await app.call("PushTaskOutput", OUTPUT)

        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_outlives_the_gateway_that_feeds_it(
    tmp_path: Path, nats_url: str, pg_dsn: str
) -> None:
    async with front(tmp_path, nats_url, pg_dsn) as there:
        app = await there.first.server_app()
        stream = there.follow(app.run_id)
        await say(app, "before\n")
        assert await heard(stream) == "before\n"

        there.second.stop.set()
        await there.second.running
        await say(app, "after\n")

        assert await heard(stream) == "after\n"


async def test_a_balancer_that_is_started_again_finds_the_relay_at_work(
    tmp_path: Path, nats_url: str, pg_dsn: str
) -> None:
    async with front(tmp_path, nats_url, pg_dsn) as there:
        app = await there.first.server_app()
        broken = there.follow(app.run_id)
        await say(app, "once\n")
        assert await heard(broken) == "once\n"

        await there.balancer.stop()
        with pytest.raises(grpc.aio.AioRpcError):
            await broken.read()
        await there.balancer.start()

        assert await heard(there.follow(app.run_id)) == "once\n"


async def test_a_refusal_is_passed_on_as_it_is(tmp_path: Path, nats_url: str, pg_dsn: str) -> None:
    async with front(tmp_path, nats_url, pg_dsn) as there:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await there.follow(12345).read()

        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        assert json.loads(refusal.value.details() or "")["public_message"]
