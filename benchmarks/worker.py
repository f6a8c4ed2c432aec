"""A module of this package in a process of its own, with one command a line."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks.processes import STOP_SECONDS, Child, ChildFailed, cpu_seconds


class TooSlow(ChildFailed):
    """A worker did not answer within its time limit."""


class Worker:
    """A module of this package in its own process: one JSON command a line in, one answer out."""

    def __init__(
        self,
        module: str,
        arguments: Mapping[str, object],
        log: Path,
        *,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
    ) -> None:
        command = [python, "-m", f"benchmarks.{module}", json.dumps(arguments)]
        self.child = Child.start(command, log, env=env, pipes=True)
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in _piped(self.child.process.stdout):
            self._answers.put(line)
        self._answers.put("")

    def ask(self, do: str, patience: float, **arguments: object) -> dict[str, Any]:
        """Send a command and return its answer.

        Raises:
            TooSlow: The answer took over ``patience`` seconds.
            ChildFailed: The worker answered with an error, or ended.
        """
        stdin = _piped(self.child.process.stdin)
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
            line = self._answers.get(timeout=patience)
        except queue.Empty as exc:
            raise TooSlow(f"no answer to {do!r} in {patience} s:\n{self.child.tail()}") from exc
        except BrokenPipeError as exc:
            raise ChildFailed(f"ended before {do!r}:\n{self.child.tail()}") from exc
        if not line:
            raise ChildFailed(f"ended during {do!r}:\n{self.child.tail()}")
        answer: dict[str, Any] = json.loads(line)
        if error := answer.get("error"):
            raise ChildFailed(f"{do!r}: {error}\n{self.child.tail()}")
        return answer

    def cpu_seconds(self) -> float:
        """Return the CPU time of the worker so far, in seconds."""
        return cpu_seconds(self.child.tree())

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        stdin = _piped(self.child.process.stdin)
        try:
            stdin.close()
            self.child.process.wait(STOP_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.child.stop()


def _piped(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "started with pipes"
    return stream
