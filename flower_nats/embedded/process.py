"""One owned child process: it has a log, a pid file, and never outlives its owner for long.

Waiting polls, and takes no thread and no signal handler, so that a process may be started in one
event loop and stopped in another.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError

_POLL_SECONDS = 0.02
_LOG_LIMIT_BYTES = 10_000_000
_CHILD = Path(__file__).with_name("child.py")

log = get_logger(__name__)


class ProcessFailedError(FlowerNatsError):
    """A child process ended, or did not become ready, when it should run."""


@dataclass(frozen=True)
class ProcessSpec:
    """How a child process is run."""

    name: str
    """What logs and people call it."""

    command: Sequence[str]
    """Absolute path of the program, and its arguments. Visible to every user: no secrets."""

    environment: Mapping[str, str] | None = None
    """Its whole environment, None for a copy of ours. The place for secrets."""

    log: Path | None = None
    """Takes its stdout and stderr, None to share ours."""

    pid_file: Path | None = None
    """Where to remember it, so that a later owner finds it."""

    stop_signal: signal.Signals = signal.SIGTERM
    """Asks it to end in good order."""

    unprivileged: bool = False
    """Whether it must not run as root."""


class OwnedProcess:
    """A child process as `ProcessSpec` describes it.

    Start it in a thread that lives as long as it should: the kernel takes the end of that thread
    for the end of the parent.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """What logs and people call it."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """Its process id, 0 before it was started."""
        return 0 if self._popen is None else self._popen.pid

    async def start(self) -> None:
        """Start it, after the end of whatever its pid file still names."""
        spec = self.spec
        if spec.pid_file is not None:
            await end_remembered(spec.pid_file)
        self._popen = _spawn(spec)
        if spec.pid_file is not None:
            _remember(spec.pid_file, self._popen.pid, spec.stop_signal)
        log.debug("process_started", process=spec.name, pid=self._popen.pid)

    def exit_code(self) -> int | None:
        """Return its exit code (negative: the signal that ended it), None while it runs."""
        return None if self._popen is None else self._popen.poll()

    async def wait(self) -> int:
        """Wait for its end and return its exit code."""
        while True:
            code = self.exit_code()
            if code is not None:
                return code
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, and kill it and its process group after `grace` seconds."""
        if self._popen is None:
            return
        if self.exit_code() is None:
            self._popen.send_signal(self.spec.stop_signal)
            try:
                await asyncio.wait_for(self.wait(), grace)
            except TimeoutError:
                log.warning("process_killed", process=self.name, pid=self.pid, grace=grace)
                _signal_group(self.pid, signal.SIGKILL)
                await self.wait()
        if self.spec.pid_file is not None:
            _forget(self.spec.pid_file)

    def failure(self) -> ProcessFailedError:
        """Describe how it ended, with the end of its log."""
        return ProcessFailedError(
            f"{self.name} ended with exit code {self.exit_code()}.{self._last_lines()}"
        )

    def _last_lines(self, count: int = 15) -> str:
        if self.spec.log is None or not self.spec.log.exists():
            return ""
        lines = self.spec.log.read_text(errors="replace").splitlines()[-count:]
        return f" The end of {self.spec.log}:\n" + "\n".join(f"  {line}" for line in lines)


async def end_remembered(pid_file: Path, grace: float = 5.0) -> bool:
    """End the process that a pid file names, if it is still that process, and remove the file.

    Returns whether it was still running.
    """
    remembered = _Remembered.read(pid_file)
    alive = remembered is not None and remembered.is_alive()
    if remembered is not None and alive:
        log.warning("stale_process_ended", pid=remembered.pid, pid_file=str(pid_file))
        await remembered.end(grace)
    _forget(pid_file)
    return alive


def private_directory(path: Path) -> Path:
    """Return `path` as a directory that only its owner may enter; create it if needed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def private_file(path: Path, content: str) -> Path:
    """Write a file that only its owner may read, whole or not at all, and return `path`."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    draft.replace(path)
    return path


def _spawn(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    wrapper = [sys.executable, "-I", "-S", str(_CHILD)]
    if spec.unprivileged:
        wrapper.append("--unprivileged")
    output = None if spec.log is None else _open_log(spec.log)
    try:
        return subprocess.Popen(
            [*wrapper, str(os.getpid()), str(int(spec.stop_signal)), *spec.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            env=None if spec.environment is None else dict(spec.environment),
            # Ctrl-C in a terminal is for the owner, which ends its children in order.
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


@dataclass(frozen=True)
class _Remembered:
    """What a pid file holds."""

    pid: int
    started: str | None
    signal: int

    @classmethod
    def read(cls, pid_file: Path) -> _Remembered | None:
        try:
            return cls(**json.loads(pid_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def is_alive(self) -> bool:
        return self.started is not None and _start_of(self.pid) == self.started

    async def end(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        with suppress(ProcessLookupError):
            os.kill(self.pid, self.signal)
        while True:
            if not self.is_alive():
                return
            if time.monotonic() > deadline:
                _signal_group(self.pid, signal.SIGKILL)
            await asyncio.sleep(_POLL_SECONDS)


def _remember(pid_file: Path, pid: int, stop_signal: signal.Signals) -> None:
    process = _Remembered(pid, _start_of(pid), int(stop_signal))
    private_file(pid_file, json.dumps(asdict(process)))


def _forget(pid_file: Path) -> None:
    pid_file.unlink(missing_ok=True)


def _start_of(pid: int) -> str | None:
    """Return when a process started, which with the pid is its identity; None if it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return listing.stdout.strip() or None
    try:
        # The name of the program, in parentheses, may hold blanks: count from its end.
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
