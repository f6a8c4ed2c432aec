"""The schedule: every few seconds a random process is killed, and started again a little later."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.chaos.plan import Plan
from benchmarks.chaos.servers import Mark, StartError
from harness.processes import kill


@dataclass
class Fault:
    """One kill. Times are of `time.monotonic`."""

    kind: str
    name: str
    at: float
    back: float | None = None
    """When the process served again."""


class Killer:
    """Kills random processes with SIGKILL; at most one NATS server is down at a time.

    The choice depends on the seed, and on the processes that are up at the time of the kill.
    """

    def __init__(self, marks: Sequence[Mark], plan: Plan, tell: Callable[[str], None]) -> None:
        self.faults: list[Fault] = []
        self.failed_starts = 0
        """Starts of killed processes that failed."""
        self._up = {mark.victim.name: mark for mark in marks}
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._tell = tell
        self._restarts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Kill until cancelled, or as often as planned."""
        due = time.monotonic() + self._plan.every
        while self._plan.kills is None or len(self.faults) < self._plan.kills:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += self._plan.every
            if eligible := self._eligible():
                self._hit(self._random.choice(eligible))

    async def settle(self) -> None:
        """Wait until all processes are up again."""
        await asyncio.gather(*self._restarts)

    def _eligible(self) -> list[Mark]:
        down = {fault.kind for fault in self.faults if fault.back is None}
        return [mark for mark in self._up.values() if mark.kind != "nats" or "nats" not in down]

    def _hit(self, mark: Mark) -> None:
        del self._up[mark.victim.name]
        fault = Fault(mark.kind, mark.victim.name, time.monotonic())
        self.faults.append(fault)
        self._tell(f"killed {fault.name}")
        # A task of its own: the process is started again even if the chaos ends meanwhile.
        life = asyncio.create_task(self._kill_and_restart(mark, fault), name=f"kill {fault.name}")
        self._restarts.add(life)
        life.add_done_callback(self._restarts.discard)

    async def _kill_and_restart(self, mark: Mark, fault: Fault) -> None:
        await kill(mark.victim)
        while True:
            await asyncio.sleep(max(0.0, fault.at + self._plan.down - time.monotonic()))
            try:
                await mark.victim.start()
                break
            except StartError as exc:
                self.failed_starts += 1
                self._tell(f"{fault.name} did not come up: {exc}")
                await asyncio.sleep(0.5)
        fault.back = time.monotonic()
        self._up[mark.victim.name] = mark
