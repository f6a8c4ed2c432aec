"""The identity of a process: the system may give a process id to another process later."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_CHILDREN = _PROC / f"self/task/{os.getpid()}/children"
"""Some kernels do not list a process's children (CONFIG_PROC_CHILDREN)."""


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, even if its id is used again later."""

    pid: int

    started: str
    """When it started, as the operating system reports it; on Linux, with the id of the boot."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of the process that now has this id; None if there is none."""
        if not (_PROC / "self" / "stat").exists():
            return cls._from_ps(pid)
        stat = _Stat.read(pid)
        return None if stat is None else cls(pid, stat.started)

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        now = ProcessIdentity.of(self.pid)
        # Version 0.1.0 stored no boot id.
        return now is not None and (now == self or now.started.startswith(f"{self.started}@"))

    def signal(self, number: int) -> None:
        """Send the process a signal, if it still runs."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill the process and the process group that it leads."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill_orphans(self) -> None:
        """Kill the rest of the process group that it led, if the process is gone.

        While any member of the group is left, no other process gets the id.
        """
        if ProcessIdentity.of(self.pid) is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    @classmethod
    def _from_ps(cls, pid: int) -> ProcessIdentity | None:
        listing = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        started = listing.stdout.strip()
        return cls(pid, started) if started else None


def descendants_of(pid: int) -> list[ProcessIdentity]:
    """Return all descendants of a process (known on Linux only)."""
    children: dict[int, list[ProcessIdentity]] = {}
    for process, parent in _all_processes():
        children.setdefault(parent, []).append(process)
    found: list[ProcessIdentity] = []
    parents = [pid]
    while parents:
        generation = [child for parent in parents for child in children.get(parent, [])]
        found += generation
        parents = [child.pid for child in generation]
    return found


def started_by(pid: int) -> list[ProcessIdentity]:
    """Return all descendants cheaply: only these processes are read.

    The kernel may leave some out while others end, so the caller must look again.
    """
    if not _CHILDREN.exists():
        return descendants_of(pid)
    found: list[ProcessIdentity] = []
    parents = [pid]
    while parents:
        parents = [child for parent in parents for child in _children_of(parent)]
        found += filter(None, map(ProcessIdentity.of, parents))
    return found


def command_of(pid: int) -> list[str]:
    """Return the words of a process's command; empty if it is gone (known on Linux only)."""
    try:
        text = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode(errors="replace") for word in text.removesuffix(b"\0").split(b"\0")]


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in os.scandir(_PROC / str(pid) / "task"):
            with suppress(OSError):
                found += map(int, Path(thread.path, "children").read_bytes().split())
    return found


def _all_processes() -> Iterator[tuple[ProcessIdentity, int]]:
    for entry in _PROC.glob("[0-9]*"):
        pid = int(entry.name)
        stat = _Stat.read(pid)
        if stat is not None:
            yield ProcessIdentity(pid, stat.started), stat.parent


@cache
def _boot() -> str:
    """Return the id of this boot, because start times are counted from the boot."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class _Stat:
    """The values from `/proc/<pid>/stat` of a running process."""

    parent: int
    started: str

    @classmethod
    def read(cls, pid: int) -> _Stat | None:
        try:
            text = (_PROC / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The program's name, in parentheses, may contain blanks, so fields are counted after it.
        fields = text.rpartition(")")[2].split()
        state, parent, started = fields[0], fields[1], fields[19]
        return None if state in "ZX" else cls(int(parent), f"{started}@{_boot()}")
