"""Whatever a task does with the first word that it is to end, a process ends when it is told to."""

from __future__ import annotations

import asyncio

from flower_nats.stopping import keep_running, until


async def miss_one_cancel(begun: asyncio.Event) -> None:
    """Go on for ever after one cancel, as asyncio.wait_for of Python 3.11 has its caller do.

    That happens in drivers: the cancel comes together with what was waited for.
    """
    try:
        begun.set()
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def test_side_tasks_end_though_one_has_missed_it() -> None:
    stop = begun = asyncio.Event()

    async with asyncio.timeout(20):
        await keep_running(stop, {"deaf": miss_one_cancel(begun)})


async def test_work_that_has_missed_it_is_ended_all_the_same() -> None:
    stop = begun = asyncio.Event()

    async with asyncio.timeout(20):
        await until(stop, miss_one_cancel(begun))
