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

from flower_nats.embedded.identity import ProcessIdentity, descendants_of
from flower_nats.embedded.ownership import check_directory, read_ours
from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError

_POLL_SECONDS = 0.02
_KILLED_SECONDS = 1.0
"""Seconds that a killed process may take to be gone."""
_WATCH_SECONDS = 1.0
"""Between two looks at the log of a process that is meant to run for long; its end is told at once."""
_LOOK_SECONDS = 0.2
"""Between two looks at a process whose end is not told: looking often costs CPU for ever."""
_LOG_LIMIT_BYTES = 10_000_000
"""Of a larger log, so much is set aside as `.log.1`, in the place of what was there before."""
_LONGEST_INPUT_BYTES = 64 * 1024
"""What a pipe holds without a reader (Linux)."""
CHILD = Path(__file__).with_name("child.py")
"""Becomes the program of a child process."""
_GUARD = Path(__file__).with_name("guard.py")

log = get_logger(__name__)


class ProcessFailedError(FlowerNatsError):
    """A child process ended, or did not become ready, when it should run."""


@dataclass(frozen=True)
class User:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    home: Path


@dataclass(frozen=True)
class ProcessSpec:
    """How a child process is run."""

    name: str
    """What logs and people call it."""

    command: Sequence[str]
    """Absolute path of the program, and its arguments. Visible to every user: no secrets."""

    environment: Mapping[str, str] | None = None
    """Its whole environment; None: a copy of this process's. The place for secrets."""

    log: Path | None = None
    """Takes its stdout and stderr, None to share ours."""

    pid_file: Path | None = None
    """Where to remember it, so that a later owner finds it."""

    input: Path | None = None
    """File whose content it reads from its standard input; it need not be able to open the file itself.
    None for nothing."""

    stop_signal: signal.Signals = signal.SIGTERM
    """Asks it to end in good order."""

    orphan_signal: signal.Signals | None = None
    """Ends it when we are gone, None for `stop_signal`. SIGKILL, if without us there is nothing
    left for it to finish."""

    unprivileged: bool = False
    """Whether it must not run as root."""

    user: User | None = None
    """As whom it runs, which root can say; None: as we do. It and what it starts gain no rights by
    running programs then."""

    guarded: bool = False
    """Whether what it has started is ended after it, however it ended."""


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

    async def end_former(self) -> None:
        """End what a former owner has left running, if its pid file names any, as `start` does.

        Call it before touching files of the process: one that is about to end changes them, too.
        """
        if self.spec.pid_file is not None:
            await end_remembered(self.spec.pid_file)

    async def start(self) -> None:
        """Start it, after the end of whatever its pid file still names."""
        await self.end_former()
        spec = self.spec
        self._popen = _spawn(spec)
        started = ProcessIdentity.of(self._popen.pid)
        if spec.pid_file is not None and started is not None:
            _Remembered(started, spec.stop_signal).write(spec.pid_file)
        log.debug("process_started", process=spec.name, pid=self._popen.pid)

    def exit_code(self) -> int | None:
        """Return its exit code (negative: the signal that ended it), None while it runs."""
        return None if self._popen is None else self._popen.poll()

    async def wait(self) -> int:
        """Wait for its end and return its exit code; keep its log from growing without end."""
        while True:
            code = self.exit_code()
            if code is not None:
                return code
            if self.spec.log is not None:
                _cut_log(self.spec.log)
            await _ended_within(self.pid, _WATCH_SECONDS)

    async def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, wait for it and all that it has started, kill them after `grace` seconds.

        What it has started is not asked: it notices by itself, and may have something to finish.
        """
        if self._popen is None:
            return
        deadline = time.monotonic() + grace
        if self.exit_code() is None:
            descendants = descendants_of(self.pid)
            self._popen.send_signal(self.spec.stop_signal)
            await self._end(deadline)
            await _await_end(descendants, deadline)
        if self.spec.pid_file is not None:
            _forget(self.spec.pid_file)

    async def _end(self, deadline: float) -> None:
        while self.exit_code() is None:
            if time.monotonic() > deadline:
                log.warning("process_killed", process=self.name, pid=self.pid)
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                await self.wait()
                return
            await asyncio.sleep(_POLL_SECONDS)

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

    Returns whether it was still running. Raises NotOursError for a file that others may have written.
    """
    remembered = _Remembered.read(pid_file)
    alive = remembered is not None and remembered.process.is_alive()
    if remembered is not None and alive:
        log.warning("stale_process_ended", pid=remembered.process.pid, pid_file=str(pid_file))
        await remembered.end(grace)
    _forget(pid_file)
    return alive


async def end_left_by_former_owner(pid_file: Path) -> bool:
    """End the process that a pid file names, or what it has left behind if it is gone.

    Returns whether it was still running.
    """
    former = remembered(pid_file)
    alive = await end_remembered(pid_file)
    if former is not None:
        former.kill_orphans()
    return alive


def remembered(pid_file: Path) -> ProcessIdentity | None:
    """Return the process that a pid file names, whether it still runs or not; None without one."""
    content = _Remembered.read(pid_file)
    return None if content is None else content.process


async def _await_end(processes: Sequence[ProcessIdentity], deadline: float) -> None:
    """Wait for the end of processes; kill those that are there after `deadline`, and see them go."""
    if alive := await _outlasting(processes, deadline):
        log.warning("descendants_killed", pids=[process.pid for process in alive])
        for process in alive:
            process.signal(signal.SIGKILL)
        await _outlasting(alive, time.monotonic() + _KILLED_SECONDS)


async def _ended_within(pid: int, seconds: float) -> None:
    """Return when a child process has ended, or may have, or after this many seconds."""
    if not hasattr(os, "pidfd_open"):
        await asyncio.sleep(_LOOK_SECONDS)
        return
    try:
        ending = os.pidfd_open(pid)
    except OSError:  # It is gone, or the system has none to give.
        await asyncio.sleep(_LOOK_SECONDS)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(ending, ended.set)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended.wait()
    finally:
        loop.remove_reader(ending)
        os.close(ending)


async def _outlasting(
    processes: Sequence[ProcessIdentity], deadline: float
) -> list[ProcessIdentity]:
    while alive := [process for process in processes if process.is_alive()]:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return alive


def private_directory(path: Path) -> Path:
    """Return `path` as a directory that only its owner may enter; create it if needed.

    Raises NotOursError for one that is there and that others may have put something into.
    """
    if path.exists():
        check_directory(path)
    else:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(path.parent)
    return path


def private_file(path: Path, content: str) -> Path:
    """Write a file that only its owner may read, whole or not at all, and return `path`.

    It is on disk then: a password that a server was given must outlive a power cut, as what the
    server keeps behind it does.
    """
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)
    return path


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on disk: what was made or renamed there outlives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spawn(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    wrapper = [sys.executable, "-I", "-S", str(CHILD)]
    user = [] if spec.user is None else ["--user", spec.user.name]
    guard = []
    if spec.guarded:
        # The guard stays who we are: it has to end what runs as another.
        guard = [sys.executable, "-I", "-S", str(_GUARD), *user]
    elif spec.unprivileged:
        wrapper.append("--unprivileged")
    else:
        wrapper += user
    orphan_signal = spec.orphan_signal or spec.stop_signal
    given = subprocess.DEVNULL if spec.input is None else _pipe_with(spec.input, spec.user)
    output = None if spec.log is None else _open_log(spec.log)
    try:
        return subprocess.Popen(
            [*wrapper, str(os.getpid()), str(int(orphan_signal)), *guard, *spec.command],
            stdin=given,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            env=None if spec.environment is None else dict(spec.environment),
            # Ctrl-C in a terminal is for the owner, which ends its children in order.
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()
        if given != subprocess.DEVNULL:
            os.close(given)


def _pipe_with(file: Path, reader: User | None) -> int:
    """Return the end of a pipe that gives what is in a file, once."""
    content = file.read_bytes()
    if len(content) > _LONGEST_INPUT_BYTES:
        raise ProcessFailedError(f"{file} is longer than {_LONGEST_INPUT_BYTES} bytes.")
    to_read, to_write = os.pipe()
    if reader is not None and os.geteuid() == 0:
        # Else it could not open /dev/stdin.
        os.fchown(to_read, reader.uid, reader.gid)
    os.write(to_write, content)
    os.close(to_write)
    return to_read


def _open_log(path: Path) -> IO[bytes]:
    _cut_log(path)
    return path.open("ab")


def _cut_log(path: Path) -> None:
    """Set the end of a log aside that is too long; its writer goes on at the start of the file."""
    size = path.stat().st_size if path.exists() else 0
    if size <= _LOG_LIMIT_BYTES:
        return
    try:
        with path.open("rb") as whole, path.with_name(path.name + ".1").open("wb") as aside:
            whole.seek(size - _LOG_LIMIT_BYTES)
            # No more than that: who writes fast could be read from for ever.
            aside.write(whole.read(_LOG_LIMIT_BYTES))
    except OSError as exc:
        # A full disk, most likely, which is not to be filled further.
        log.warning("log_dropped", file=str(path), reason=str(exc))
    os.truncate(path, 0)


@dataclass(frozen=True)
class _Remembered:
    """What a pid file holds."""

    process: ProcessIdentity
    stop_signal: int

    @classmethod
    def read(cls, pid_file: Path) -> _Remembered | None:
        try:
            content = json.loads(read_ours(pid_file))
            process = ProcessIdentity(content["pid"], content["started"])
            return cls(process, content["signal"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def write(self, pid_file: Path) -> None:
        content = {**asdict(self.process), "signal": self.stop_signal}
        private_file(pid_file, json.dumps(content))

    async def end(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        self.process.signal(self.stop_signal)
        while True:
            if not self.process.is_alive():
                return
            if time.monotonic() > deadline:
                self.process.kill_group()
            await asyncio.sleep(_POLL_SECONDS)


def _forget(pid_file: Path) -> None:
    pid_file.unlink(missing_ok=True)
