"""The machine of a ServerApp is lost."""

from __future__ import annotations

import asyncio

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from harness.apps import StockApp
from harness.children import PATIENCE
from harness.cluster import Cluster
from tests.faults.conftest import FULL
from tests.faults.trial import NODES, Trial

_SPARED = 50.0
"""Seconds of the task's silence that CI does not wait for."""


async def test_the_run_of_a_lost_serverapp_fails_and_its_nodes_are_free(
    cluster: Cluster, running: Trial
) -> None:
    lost = running.app
    await lost.more_rounds(2)
    for node in running.nodes[:2]:
        node.thinking.clear()
    await asyncio.sleep(0.5)

    await lost.kill()
    if not FULL:
        await pass_silence(cluster, lost.run_id)
    async with asyncio.timeout(PATIENCE):
        while (await details(running)).status.status != "finished":
            await asyncio.sleep(0.5)

    status = (await details(running)).status
    assert (status.sub_status, status.details) == ("failed", "No heartbeat received from the task")
    assert running.log is not None
    await running.log.until_end()
    assert lost.log.startswith(running.log.text)
    assert f"round 2: node {NODES} answered" in running.log.text
    await running.assert_nothing_left()
    await the_same_nodes_do_the_next_run(running)


async def pass_silence(cluster: Cluster, run_id: int) -> None:
    """Move the last sign of life of the run's task into the past."""
    async with cluster.database() as database:
        await database.execute(
            "UPDATE task SET active_until = active_until - make_interval(secs => %(seconds)s)"
            " WHERE run_id = %(run_id)s",
            seconds=_SPARED,
            run_id=run_id,
        )


async def details(running: Trial) -> common.Run:
    """Return the run, as `flwr list --run-id` shows it."""
    wire = await running.wire("Control")
    request = control.ListRunsRequest(run_id=running.app.run_id)
    answer = await wire.call("Control", "ListRuns", request)
    await wire.close()
    run: common.Run = answer.run_dict[running.app.run_id]
    return run


async def the_same_nodes_do_the_next_run(running: Trial) -> None:
    for node in running.nodes:
        node.thinking.set()
    following = StockApp(
        await running.wire("Control"), await running.wire("Runtime"), running.nodes
    )
    try:
        await following.submit()
        await following.start()
        await following.until_round(2)
        assert following.errors == []
    finally:
        await following.finish()
        await following.kill()
