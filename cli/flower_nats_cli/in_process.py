"""A part of the runtime that runs in the process of its supervisor: for a machine with little memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from flower_nats.embedded.process import ProcessFailedError
from flower_nats.stopping import end_tasks

Serve = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs a part until the event."""


class InProcess:
    """A superlink or a gateway as a task that supervisors start, watch and end."""

    def __init__(self, name: str, serve: Serve) -> None:
        self.name = name
        self._serve = serve
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, or start it again."""
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._serve(self._stop), name=self.name)

    def exit_code(self) -> int | None:
        """Return 0 or 1 once the part has ended, None while it runs."""
        if self._task is None or not self._task.done():
            return None
        return 1 if self._task.cancelled() or self._task.exception() else 0

    async def wait(self) -> int:
        """Wait for its end."""
        if self._task is not None:
            await asyncio.wait({self._task})
        return self.exit_code() or 0

    async def stop(self, grace: float) -> None:
        """End it, by force after `grace` seconds."""
        if self._task is None:
            return
        self._stop.set()
        await asyncio.wait({self._task}, timeout=grace)
        await end_tasks([self._task])

    def failure(self) -> ProcessFailedError:
        """Describe how it ended."""
        ended = self._task is not None and self._task.done() and not self._task.cancelled()
        reason = self._task.exception() if self._task is not None and ended else None
        return ProcessFailedError(f"{self.name} ended: {reason or 'without being asked to'}.")
