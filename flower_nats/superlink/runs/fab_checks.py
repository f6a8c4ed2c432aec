"""Checks FABs in separate processes with limited computing time and memory.

A FAB of a few bytes can take minutes or gigabytes to read. In this process, even in a thread, it
would hold up all calls.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from typing import Any

from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable
from flower_nats.model.fab import FabInfo, InvalidFab, check_size
from flower_nats.model.task import TaskType
from flower_nats.superlink.runs.fab_child import CPU_SECONDS, INFO, REFUSED

log = get_logger(__name__)

_AT_ONCE = 2
"""FABs that are checked at the same time."""

_MOST_WAITING = 16
"""FABs that may wait for a check, each with up to 10 MiB."""

_TO_ANSWER = 2.0
"""Seconds that a check must leave to store the run and answer in time."""

_KNOWN = 32
"""Accepted FABs that need no second check, because people run the same app many times."""

_COMMAND = (sys.executable, "-P", "-m", "flower_nats.superlink.runs.fab_child")

# The runtime's passwords are in other variables.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "LANG")


class FabChecks:
    """Checks FABs, a few at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._known: OrderedDict[str, FabInfo] = OrderedDict()

    async def check(self, content: bytes, answer_by: float) -> FabInfo:
        """Check a FAB and return what it says of itself.

        Raises `InvalidFab`, or `Unavailable` if the check was too late for an answer at the moment
        `answer_by` of the monotonic clock.
        """
        check_size(content)
        fab_hash = (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()
        if fab_hash not in self._known:
            self._known[fab_hash] = await self._in_turn(content, answer_by)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(fab_hash)
        return self._known[fab_hash]

    async def _in_turn(self, content: bytes, answer_by: float) -> FabInfo:
        if self._waiting >= _MOST_WAITING:
            raise Unavailable(f"{self._waiting} apps wait to be checked already")
        self._waiting += 1
        try:
            async with asyncio.timeout(answer_by - time.monotonic() - _TO_ANSWER):
                async with self._places:
                    return await _check(content)
        except TimeoutError as exc:
            raise Unavailable("the app could not be checked in time") from exc
        finally:
            self._waiting -= 1


class _Child:
    """One process, run on a thread: uvloop's own way to start one is not safe with threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_dropped = False

    def run(self, content: bytes) -> tuple[int, bytes]:
        """Send the FAB; return exit code and answer."""
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as self._process:
            if self._is_dropped:
                self._process.kill()
            answer, _ = self._process.communicate(content)
        return self._process.returncode, answer

    def drop(self) -> None:
        """End the process, also if it is just being started."""
        self._is_dropped = True
        if self._process is not None:
            self._process.kill()


async def _check(content: bytes) -> FabInfo:
    child = _Child()
    try:
        code, answer = await asyncio.to_thread(child.run, content)
    finally:
        child.drop()
    if code == -signal.SIGXCPU:
        raise InvalidFab(
            f"Reading the app's FAB takes more than {CPU_SECONDS} seconds. Remedy: put fewer or "
            "smaller files into it, and simplify its pyproject.toml."
        )
    if code != 0:
        log.error("fab_check_failed", exit_code=code)
        raise Unavailable(f"the process that checks apps ended with {code}")
    return _read(answer)


def _read(answer: bytes) -> FabInfo:
    said: dict[str, Any] = json.loads(answer)
    if REFUSED in said:
        raise InvalidFab(said[REFUSED])
    info = said[INFO]
    return FabInfo(**{**info, "task_type": TaskType(info["task_type"])})
