"""How a process runs until it is told to end."""

import asyncio
import signal
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, TypeVar

from flower_nats.logs import get_logger

T = TypeVar("T")

log = get_logger(__name__)

_CANCEL_AGAIN = 1.0
"""Seconds after which a task that still runs is cancelled again."""


def stop_at_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`; if the event comes first, cancel `work` and return None."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await end_tasks([working, stopping])


async def keep_running(stop: asyncio.Event, work: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run all tasks in `work`, by name, until the event.

    If a task raises, the others are ended and its error is raised: a process with missing parts is
    worse than a restarted one.
    """
    tasks = [asyncio.create_task(one, name=name) for name, one in work.items()]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks([stopping, *tasks])
    for task in done:
        if task.exception() is not None:
            log.error("side_task_failed", task=task.get_name(), reason=repr(task.exception()))
            task.result()


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and return when all have ended in any way.

    A cancel may get lost: `asyncio.wait_for` of Python 3.11, which drivers use, drops a cancel that
    comes together with its result. The task then goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN)
        for task in ended:
            if not task.cancelled():
                task.exception()  # Otherwise asyncio logs that the exception was never retrieved.
