"""SIGTERM: a replica leaves, and no request is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from flower_nats.wire import runtime_pb2 as runtime
from harness.cluster import Cluster
from harness.processes import kill, terminate
from tests.faults.trial import BOTH, Trial

CALLERS = 8


class Hammer:
    """Makes calls without a pause."""

    def __init__(self, call: Callable[[], Awaitable[object]]) -> None:
        self._call = call
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.calls = 0

    async def __aenter__(self) -> Hammer:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(CALLERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        while not self._over.is_set():
            await self._call()
            self.calls += 1


async def test_a_superlink_that_leaves_loses_no_request(cluster: Cluster, running: Trial) -> None:
    app = running.app

    async def ask_for_nodes() -> None:
        metadata = [("flwr-task-token", app.app.token)]
        request = runtime.GetNodesRequest()
        answer = await app.wire.call_once("Runtime", "GetNodes", request, metadata)
        assert {node.node_id for node in running.nodes} <= {node.node_id for node in answer.nodes}

    async with Hammer(ask_for_nodes) as hammer:
        for superlink in cluster.superlinks:
            await terminate(superlink)
            await superlink.start()

    assert hammer.calls > 0
    await running.end_unharmed()


@BOTH
async def test_a_gateway_that_leaves_ends_held_calls_and_log_streams_in_good_order(
    cluster: Cluster, running: Trial
) -> None:
    for gateway in cluster.gateways:
        await terminate(gateway)
        await gateway.start()
        await running.balancer.until_healthy()

    await running.end_unharmed()
    if running.wires.cli == "grpc":
        # Over HTTP `flwr log` never calls again, and only the end of the run ends the log.
        running.assert_log_unbroken()


@pytest.mark.parametrize("missing", ["nats", pytest.param("postgres", marks=pytest.mark.long)])
async def test_replicas_leave_while_a_server_is_gone(
    cluster: Cluster, running: Trial, missing: str
) -> None:
    if missing == "nats":
        await asyncio.gather(*(kill(server) for server in cluster.nats))
    else:
        await cluster.postgres.stop()
    await asyncio.sleep(1)

    await asyncio.gather(*(terminate(one) for one in (*cluster.gateways, *cluster.superlinks)))

    await cluster.heal()
    await running.app.more_rounds(2)
    await running.end_unharmed()
