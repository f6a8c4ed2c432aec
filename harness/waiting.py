"""Waiting in coroutines. Tests without an event loop wait with `children.wait_until`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from harness.children import PATIENCE


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until `condition` is true; it may be a coroutine function.

    Raises TimeoutError after `PATIENCE` seconds.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if await found if isawaitable(found) else found:
                return
            await asyncio.sleep(0.05)
