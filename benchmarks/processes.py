"""Child processes of a benchmark: started, asked, measured, and ended by their id.

A child never outlives the harness: it gets a signal when the harness dies, and a child with pipes
ends when its standard input does.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STOP_SECONDS = 15.0
"""Seconds that a process has to end in good order."""

_ENOUGH_FILES = 65_536
"""Open files of a process, if the system permits: with more, some programs make long lists."""

_ROOT = Path(__file__).resolve().parent.parent


class ChildFailed(RuntimeError):
    """A child ended, answered with an error, or did not answer in time."""


def allowed_files() -> int:
    """Return how many files a process may open after `allow_files`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft, _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES))


def allow_files() -> None:
    """Let this process and its later children open many files: connections are files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed_files(), hard))


def free_address() -> str:
    """Return a loopback ``host:port`` on which nothing listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def executable(name: str) -> str:
    """Return the path of the console script ``name`` in this Python's environment."""
    return str(Path(sys.executable).parent / name)


@dataclass
class Child:
    """A process of the harness, with all processes that it has started."""

    process: subprocess.Popen[str]
    log: Path

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        pipes: bool = False,
    ) -> Child:
        """Start ``command`` with its output going to ``log``.

        With ``pipes``, standard input and output are pipes, and only standard error is logged.
        """
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            # Stock Flower sends usage data by default; a benchmark uses loopback only.
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            **(env or {}),
        }
        stream = subprocess.PIPE if pipes else None
        with log.open("a") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.leash", *command],
                stdin=stream or subprocess.DEVNULL,
                stdout=stream or sink,
                stderr=sink,
                env=environment,
                cwd=_ROOT,
                text=True,
            )
        return cls(process, log)

    def tree(self) -> list[psutil.Process]:
        """Return every live process of this child, parents before their children."""
        return [
            member for root in _process(self.process.pid) for member in [root, *_descendants(root)]
        ]

    def check(self) -> None:
        """Raise ChildFailed, with the end of the log, if the process has ended."""
        if (code := self.process.poll()) is not None:
            raise ChildFailed(f"{self.process.args!r} ended with {code}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def stop(self) -> None:
        """End the process with SIGTERM; after a while, end what is left of it with SIGKILL."""
        members = self.tree()
        if self.process.poll() is None:
            self.process.terminate()
        _, alive = psutil.wait_procs(members, timeout=STOP_SECONDS)
        for member in alive:
            _kill(member)
        self.process.wait()


def _process(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.Error:
        return []


def _descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return user and system CPU time so far, in seconds, with ended and reaped children."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def busy_seconds() -> float:
    """Return the CPU time of all processes of the machine so far, in seconds."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


@dataclass(frozen=True)
class Memory:
    """Memory of a group of processes, in bytes: resident (shared pages in each) and proportional.

    Proportional set size counts a page that n processes share as 1/n in each, so a sum over
    processes counts each page once.
    """

    rss: int = 0
    pss: int = 0


def memory(processes: Iterable[psutil.Process]) -> Memory:
    """Return the memory that ``processes`` hold now."""
    rss = pss = 0
    for process in processes:
        try:
            info = process.memory_full_info()
        except psutil.Error:
            continue
        rss += info.rss
        pss += info.pss
    return Memory(rss, pss)


@dataclass
class PeakMemory:
    """Samples the memory of groups of processes inside the context; ``peaks`` holds the highest.

    The groups are fixed because listing all processes costs more than sampling a few.
    """

    groups: Mapping[str, Sequence[psutil.Process]]
    interval: float = 0.2
    peaks: dict[str, Memory] = field(default_factory=dict)

    def __enter__(self) -> PeakMemory:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self.interval):
            for group, members in self.groups.items():
                now, peak = memory(members), self.peaks.get(group, Memory())
                self.peaks[group] = Memory(max(peak.rss, now.rss), max(peak.pss, now.pss))
