"""The chaos benchmark in short form: random kills under load; losses count, times do not."""

from __future__ import annotations

from benchmarks.chaos.plan import QUICK
from benchmarks.chaos.report import table, troubles
from benchmarks.chaos.trial import endure


async def test_nothing_is_lost_while_random_processes_are_killed() -> None:
    result = await endure("flower-nats", QUICK)

    assert result.is_whole, f"{table([result])}\n{troubles(result)}"
    assert len({fault.kind for fault in result.faults}) > 1
