"""Real processes with their logs on disk, ended by process id."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from harness.environment import SCRIPTS, clean_environment

Result = TypeVar("Result")

PATIENCE = 180.0
"""Seconds to wait for an event that takes a few seconds on an idle machine.
No test checks a duration."""


class NotYetError(AssertionError):
    """The condition that a test waited for did not become true in time."""


def wait_until(
    condition: Callable[[], Result | None], timeout: float, what: str, every: float = 0.05
) -> Result:
    """Return the first truthy result of `condition`, asked again and again for `timeout` seconds.

    A condition that runs a command needs a longer `every` than 50 ms: it would keep a core busy.

    Raises:
        NotYetError: `condition` was never true; `what` describes it.
    """
    deadline = time.monotonic() + timeout
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise NotYetError(f"waited {timeout:.0f} s in vain: {what}")
        time.sleep(every)


def ended(family: Iterable[psutil.Process]) -> bool:
    """Whether all processes are gone, or are zombies that their parent has not waited for."""

    def gone(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(map(gone, family))


class Child:
    """A running process whose output goes to a file.

    Ending it also ends the processes it started, each by its id.
    """

    def __init__(
        self, command: Sequence[str], *, log_file: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = log_file.stem
        self.log_file = log_file
        with log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [str(SCRIPTS / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(environment),
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def output(self) -> str:
        """Everything that the process has written so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait_for_output(self, text: str, timeout: float = PATIENCE) -> str:
        """Wait until the process has written `text`; return all of its output.

        Raises:
            NotYetError: it did not come in time, or the process ended without writing it.
        """
        return self.wait_for_match(re.compile(re.escape(text)), timeout).string

    def wait_for_match(self, pattern: re.Pattern[str], timeout: float = PATIENCE) -> re.Match[str]:
        """Wait until something in the output matches; return the first match.

        Raises:
            NotYetError: it did not come in time, or the process ended without writing it.
        """

        def written() -> re.Match[str] | None:
            ended = self.exit_code is not None
            found = pattern.search(self.output())
            if ended and not found:
                raise NotYetError(f"{self.name} ended without {pattern}:\n{self.output()}")
            return found

        return wait_until(written, timeout, f"{pattern} in the output of {self.name}")

    def wait(self, timeout: float) -> int:
        """Wait until the process has ended and return its exit code."""
        return self._process.wait(timeout)

    def ask_to_end(self) -> None:
        """Send SIGTERM and return at once."""
        if self.exit_code is None:
            self._process.terminate()

    def terminate(self, timeout: float = PATIENCE) -> int:
        """End the process with SIGTERM, kill what it leaves behind, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: the process was killed after `timeout` seconds.
        """
        family = self._family()
        self.ask_to_end()
        try:
            return self._process.wait(timeout)
        finally:
            self._kill(family)

    def kill(self) -> None:
        """Kill the process with SIGKILL, but none of the processes that it started."""
        self._process.kill()
        self._process.wait(10.0)

    def kill_all(self) -> None:
        """Kill the process and everything it started, at once, as a power cut would."""
        self._kill(self._family())

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _kill(self, family: Sequence[psutil.Process]) -> None:
        for process in family:
            # psutil compares the start time, so another process with a reused id is safe.
            if process.is_running():
                process.kill()
        psutil.wait_procs(family, timeout=10.0)
        self._process.wait(10.0)
