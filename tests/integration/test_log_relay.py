"""Log streams behind a balancer with a relay: a stream outlives its gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.transports import log_relay
from flower_nats_gateway.transports.log_relay import LogRelay
from harness.channels import CHANNELS, Channel, GrpcChannel, Refused, WireName
from harness.children import PATIENCE
from harness.clients import ServerApp
from tests.integration.gateways import Gateway, free_address, running_pair

STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]
OUTPUT = runtime.PushTaskOutputRequest(sub_status="completed")

pytestmark = pytest.mark.parametrize("wire", ["grpc", "http"])


@dataclass
class Front:
    """Two gateways, and a channel to both through the balancer."""

    first: Gateway
    second: Gateway
    channel: Channel
    balancer: Balancer
    position: float = 0.0
    """The timestamp of the last line that was received."""

    async def follow(self, run_id: int, after: float = 0.0) -> AsyncGenerator[str, None]:
        """Call StreamLogs, and yield the lines."""
        request = control.StreamLogsRequest(run_id=run_id, after_timestamp=after)
        body = request.SerializeToString()
        async for answer in self.channel.stream(STREAM_LOGS, body, (), PATIENCE):
            response = control.StreamLogsResponse.FromString(answer)
            if response.log_output:
                self.position = response.latest_timestamp
                yield response.log_output


@asynccontextmanager
async def front(directory: Path, nats_url: str, dsn: str, wire: WireName) -> AsyncIterator[Front]:
    """Run two gateways, a balancer and a log relay."""
    listen = {"grpc": free_address(), "http": free_address()}
    at, http_at, relayed = free_address(), free_address(), free_address()
    async with running_pair(nats_url, dsn) as (first, second):
        gateways = [one.settings.control_api_address for one in (first, second)]
        over_http = [one.settings.http_api_address for one in (first, second)]
        relay = LogRelay(at, http_at, gateways=relayed)
        http = Api("http", listen["http"], over_http, None, log_relay=http_at)
        apis = [http, *Api("control", listen["grpc"], gateways, None).with_log_relay(at, relayed)]
        balancer = Balancer(directory, apis)
        channel = CHANNELS[wire](listen[wire])
        try:
            await relay.start()
            await balancer.start()
            yield Front(first, second, channel, balancer)
        finally:
            await channel.close()
            await balancer.stop()
            await relay.stop()


async def say(app: ServerApp, line: str) -> None:
    await app.call("PushLogs", runtime.PushLogsRequest(logs=[line]))


async def test_a_stream_goes_on_from_answer_to_answer_to_the_end_of_the_run(
    tmp_path: Path, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with front(tmp_path, nats_url, pg_dsn, wire) as there:
        app = await there.first.server_app()
        stream = there.follow(app.run_id)
        for number in range(20):
            await say(app, f"line {number}\n")
            assert await anext(stream) == f"line {number}\n"
        await app.call("PushTaskOutput", OUTPUT)

        assert await anext(stream, "the end") == "the end"


async def test_a_client_that_takes_nothing_is_sent_little_and_one_that_calls_again_gets_all(
    tmp_path: Path, nats_url: str, pg_dsn: str, wire: WireName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only over gRPC: untaken lines of a client over HTTP fill the balancer instead."""
    if wire == "http":
        pytest.skip("clients over HTTP take the end of a stream for the end of the log")
    monkeypatch.setattr(log_relay, "_AHEAD", 1000)
    async with front(tmp_path, nats_url, pg_dsn, wire) as there:
        app = await there.first.server_app()
        said = [f"{number:0999}\n" for number in range(5)]
        heard: list[str] = []
        while len(heard) < len(said):
            await say(app, said[len(heard)])
            with pytest.raises(Refused) as ended:
                async for line in there.follow(app.run_id, after=there.position):
                    heard.append(line)
            assert ended.value.outcome is Outcome.DEADLINE_EXCEEDED

    assert heard == said


async def test_a_stream_outlives_the_gateway_that_feeds_it(
    tmp_path: Path, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with front(tmp_path, nats_url, pg_dsn, wire) as there:
        app = await there.first.server_app()
        stream = there.follow(app.run_id)
        await say(app, "before\n")
        assert await anext(stream) == "before\n"

        there.second.stop.set()
        await there.second.running
        await say(app, "after\n")

        assert await anext(stream) == "after\n"
        await stream.aclose()


async def test_a_balancer_that_is_started_again_finds_the_relay_at_work(
    tmp_path: Path, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with front(tmp_path, nats_url, pg_dsn, wire) as there:
        app = await there.first.server_app()
        broken = there.follow(app.run_id)
        await say(app, "once\n")
        assert await anext(broken) == "once\n"

        await there.balancer.stop()
        with pytest.raises(Refused):
            await anext(broken)
        await there.balancer.start()
        # The test's channel may not have noticed yet that the balancer is back.
        if isinstance(there.channel, GrpcChannel):
            await there.channel.ready()

        again = there.follow(app.run_id)
        assert await anext(again) == "once\n"
        await again.aclose()


async def test_a_refusal_is_passed_on_as_it_is(
    tmp_path: Path, nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with front(tmp_path, nats_url, pg_dsn, wire) as there:
        with pytest.raises(Refused) as refusal:
            await anext(there.follow(12345))

        assert refusal.value.outcome is Outcome.NOT_FOUND
        assert refusal.value.code
