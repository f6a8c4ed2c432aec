"""A process ends when it is told to, even if one of its tasks ignores the first cancel."""

from __future__ import annotations

import asyncio

from flower_nats.stopping import keep_running, until


async def miss_one_cancel(begun: asyncio.Event) -> None:
    """Go on for ever after one cancel, like a caller of asyncio.wait_for in Python 3.11.

    This happens in drivers: the cancel comes at the same time as the awaited result.
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
