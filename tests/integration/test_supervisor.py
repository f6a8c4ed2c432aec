"""`flower-nats up` restarts its processes as often as necessary."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from flower_nats_cli.supervisor import Supervisor
from harness.waiting import until


class Counted(OwnedProcess):
    """A process that counts its starts."""

    starts = 0

    async def start(self) -> None:
        self.starts += 1
        await super().start()


@asynccontextmanager
async def watched(process: OwnedProcess) -> AsyncIterator[asyncio.Task[None]]:
    """Run a process under a supervisor; yield the supervisor's task."""
    supervisor, end = Supervisor(), asyncio.Event()
    await supervisor.start([process], grace=2)
    supervisor.watch()
    running = asyncio.create_task(supervisor.run(end))
    try:
        yield running
    finally:
        end.set()
        await supervisor.stop()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_log_does_not_grow_without_end_while_its_process_runs(tmp_path: Path) -> None:
    log = tmp_path / "talker.log"
    talks = "for i in range(10**9): print(f'line {i}', '.' * 10_000, flush=True)"
    process = OwnedProcess(ProcessSpec("talker", [sys.executable, "-c", talks], log=log))
    async with watched(process):
        first = process.pid
        aside = log.with_name("talker.log.1")
        await until(lambda: aside.exists() and aside.stat().st_size == 10_000_000)
        cut_at = aside.stat().st_mtime_ns

        await until(lambda: aside.stat().st_mtime_ns > cut_at)

        assert process.pid == first
        assert process.exit_code() is None
    assert log.read_bytes().count(b"\0") == 0


async def test_a_process_that_could_not_be_started_again_is_once_that_is_possible(
    tmp_path: Path,
) -> None:
    logs, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    logs.mkdir()
    process = Counted(ProcessSpec("sleeper", ["/bin/sleep", "100"], log=logs / "sleeper.log"))
    async with watched(process) as running:
        first = process.pid
        logs.rename(elsewhere)
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.starts == 3 or running.done())
        assert not running.done()

        elsewhere.rename(logs)

        await until(lambda: process.pid != first and process.exit_code() is None)
    assert process.exit_code() is not None
