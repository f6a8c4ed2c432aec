"""A client's connection is cut in the middle of a call."""

from __future__ import annotations

import asyncio

import pytest

from harness.balancer import Line, Moment
from harness.children import PATIENCE
from harness.cluster import Cluster
from harness.processes import freeze, thaw
from harness.wire import ClientDied
from tests.faults.trial import BOTH, Trial, Wires, fresh_trial

MOMENTS = (Moment.REQUEST, Moment.WORK, Moment.ANSWER)
PER_MESSAGE = {
    "PullMessages": MOMENTS,
    "PushMessages": MOMENTS,
    "PushObject": (*MOMENTS, Moment.BODY),
    "PullObject": MOMENTS,
    "ConfirmMessageReceived": MOMENTS,
}
OF_A_SERVERAPP = {**PER_MESSAGE, "PushLogs": (Moment.REQUEST, Moment.ANSWER)}
AMBIGUOUS = ("http", "PushLogs", Moment.ANSWER)
"""Over HTTP a repeated batch of lines, after a lost answer, looks like new lines: the log may have
it twice."""


async def cut_next(line: Line, method: str, moment: Moment) -> None:
    """Cut the next call of a method, on a new connection: its first call has the name uncompressed."""
    cut = line.cut_at(moment, method, body_bytes=1000)
    line.cut()
    async with asyncio.timeout(PATIENCE):
        await cut.done.wait()


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(one, marks=() if one in ("PullMessages", "PushObject") else pytest.mark.long)
        for one in PER_MESSAGE
    ],
)
async def test_a_supernode_is_cut_off(running: Trial, method: str) -> None:
    for moment in PER_MESSAGE[method]:
        for node in running.nodes[:2]:
            await cut_next(node.wire.line, method, moment)
        await running.app.more_rounds(1)

    await running.end_unharmed()


@BOTH
@pytest.mark.parametrize("method", OF_A_SERVERAPP)
async def test_a_serverapp_is_cut_off(running: Trial, method: str) -> None:
    for moment in OF_A_SERVERAPP[method]:
        if (running.wires.app, method, moment) == AMBIGUOUS:
            continue
        await cut_next(running.app.wire.line, method, moment)
        await running.app.more_rounds(1)

    await running.end_unharmed()


@BOTH
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_serverapp_is_cut_off_when_it_starts(
    cluster: Cluster, wires: Wires, moment: Moment
) -> None:
    async with fresh_trial(cluster, wires) as trial:
        await trial.connect()
        cut = trial.app.wire.line.cut_at(moment, "PullTaskInput")
        await trial.start()
        assert cut.done.is_set()

        await trial.end_unharmed()


@BOTH
async def test_a_serverapp_is_cut_off_when_it_ends(running: Trial) -> None:
    cut = running.app.wire.line.cut_at(Moment.ANSWER, "PushTaskOutput")

    await running.app.finish()

    assert cut.done.is_set()
    await assert_completed_all_the_same(running)


@BOTH
async def test_a_serverapp_is_cut_off_when_it_ends_and_nobody_can_store_it(
    cluster: Cluster, running: Trial
) -> None:
    cut = running.app.wire.line.cut_at(Moment.WORK, "PushTaskOutput")

    def freeze_superlinks() -> None:
        for superlink in cluster.superlinks:
            freeze(superlink)

    running.app.before_exit = freeze_superlinks

    await running.app.finish()

    assert cut.done.is_set()
    for superlink in cluster.superlinks:
        thaw(superlink)

    await assert_completed_all_the_same(running)


async def assert_completed_all_the_same(running: Trial) -> None:
    """Check the run: a stock ServerApp pushes its output once, and logs a failure only locally."""
    assert isinstance(running.app.death, ClientDied)
    running.app.death = None
    assert running.log is not None
    await running.log.until_end()
    await running.assert_unharmed()
