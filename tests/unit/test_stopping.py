"""How processes end: whatever is cancelled ends."""

from __future__ import annotations

import asyncio

import pytest

from flower_nats.stopping import cancellable


async def test_a_cancellation_that_comes_with_the_result_is_not_lost() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(cancellable(asyncio.wait_for(answer, 10)))
    await asyncio.sleep(0)

    answer.set_result(1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_not_cancelled_returns() -> None:
    assert await cancellable(asyncio.sleep(0, 5)) == 5
