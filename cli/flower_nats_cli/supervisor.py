"""Named, watched children: a child that dies is restarted, and all end in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flower_nats.embedded.process import ProcessFailedError
from flower_nats.logs import get_logger
from flower_nats.stopping import end_tasks

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_STABLE_SECONDS = 60.0

log = get_logger(__name__)


class Service(Protocol):
    """Something that runs in a process of its own."""

    @property
    def name(self) -> str:
        """The name in logs and for people."""

    async def start(self) -> Any:
        """Start it, or start it again; raises ProcessFailedError when it does not come up."""

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""

    async def wait(self) -> int:
        """Wait for its end."""

    async def stop(self, grace: float) -> None:
        """End it, by force after `grace` seconds."""

    def failure(self) -> ProcessFailedError:
        """Describe how it ended."""


@dataclass(frozen=True)
class _Group:
    services: Sequence[Service]
    grace: float


class Supervisor:
    """Runs groups of services: starts them one after the other, ends them in the opposite order."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []
        self._watchers: dict[str, asyncio.Task[None]] = {}

    async def start(self, services: Sequence[Service], grace: float) -> None:
        """Start a group, which gets `grace` seconds for an orderly end.

        Raises ProcessFailedError if a service does not come up.
        """
        self._groups.append(_Group(services, grace))
        for service in services:
            await service.start()

    async def start_beside(self, services: Sequence[Service]) -> None:
        """Start more services, which end together with the last group.

        Raises ProcessFailedError if a service does not come up.
        """
        last = self._groups[-1]
        self._groups[-1] = _Group([*last.services, *services], last.grace)
        for service in services:
            await service.start()

    def check(self) -> None:
        """Raise ProcessFailedError if anything that was started has ended."""
        for group in self._groups:
            for service in group.services:
                if service.exit_code() is not None:
                    raise service.failure()

    def watch(self) -> None:
        """From now on, restart services that die."""
        for group in self._groups:
            for service in group.services:
                if service.name not in self._watchers:
                    watcher = self._keep_running(service)
                    self._watchers[service.name] = asyncio.create_task(watcher, name=service.name)

    def accompany(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """From now on, run this work too, until the end."""
        self._watchers[name] = asyncio.create_task(work, name=name)

    async def run(self, until: asyncio.Event) -> None:
        """Wait for the event. Raises the error of a watcher, which would be a bug."""
        end = asyncio.create_task(until.wait(), name="until")
        try:
            tasks = {end, *self._watchers.values()}
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            end.cancel()

    async def stop(self) -> None:
        """End everything, the last started group first."""
        await end_tasks(self._watchers.values())
        self._watchers.clear()
        while self._groups:
            group = self._groups.pop()
            await asyncio.gather(*(service.stop(group.grace) for service in group.services))

    async def _keep_running(self, service: Service) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            watched_since = time.monotonic()
            code = await service.wait()
            if time.monotonic() - watched_since > _STABLE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            log.error("process_died", process=service.name, exit_code=code, restart_in=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                await service.start()
            # An OSError means a full disk or too many processes. It may pass, and the other
            # services still run.
            except (ProcessFailedError, OSError) as exc:
                log.error("process_restart_failed", process=service.name, reason=str(exc))
            else:
                log.warning("process_restarted", process=service.name)
