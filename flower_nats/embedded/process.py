"""One owned child process, with a log and a pid file, which never outlives its owner for long.

Waiting polls, without a thread or a signal handler. So a process may be started in one event loop
and stopped in another.
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
"""Seconds that a killed process may take to end."""
_WATCH_SECONDS = 1.0
"""Seconds between two looks at the log of a long-running process. Its end is noticed at once."""
_LOOK_SECONDS = 0.2
"""Seconds between two looks at a process if the system does not report its end. Short times cost
CPU."""
_LOG_LIMIT_BYTES = 10_000_000
"""Bytes at the end of a larger log that are moved to `.log.1`, which is overwritten."""
_LONGEST_INPUT_BYTES = 64 * 1024
"""Bytes that a pipe holds without a reader (Linux)."""
CHILD = Path(__file__).with_name("child.py")
"""The script that becomes the program of a child process."""
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
    """The name in logs and for people."""

    command: Sequence[str]
    """Absolute path of the program, and its arguments. Every user can see them: no secrets."""

    environment: Mapping[str, str] | None = None
    """The whole environment, which may hold secrets; None for a copy of this process's."""

    log: Path | None = None
    """File for stdout and stderr, None to share ours."""

    pid_file: Path | None = None
    """The pid file, by which a later owner finds the process."""

    input: Path | None = None
    """File that becomes the standard input, None for no input. The process need not be able to open
    the file itself."""

    stop_signal: signal.Signals = signal.SIGTERM
    """The signal for an orderly end."""

    orphan_signal: signal.Signals | None = None
    """The signal after our own end, None for `stop_signal`. SIGKILL if the process has nothing to
    finish without us."""

    unprivileged: bool = False
    """Whether it must not run as root."""

    user: User | None = None
    """The user of the process, which only root can set; None for our own user. With a user set, the
    process and its children gain no rights by running programs."""

    guarded: bool = False
    """Whether its descendants are ended after it, however it ended."""


class OwnedProcess:
    """A child process as `ProcessSpec` describes it.

    Start it in a thread that lives at least as long: the kernel takes the end of that thread for
    the end of the parent.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """The name in logs and for people."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """The process id, 0 before the start."""
        return 0 if self._popen is None else self._popen.pid

    async def end_former(self) -> None:
        """End the process of a former owner, if the pid file names one, as `start` does.

        Call this before changing files of the process: the old process may still write them.
        """
        if self.spec.pid_file is not None:
            await end_remembered(self.spec.pid_file)

    async def start(self) -> None:
        """Start the process, after ending the one that the pid file still names."""
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
        """Wait for its end and return its exit code; until then, limit the size of its log."""
        while True:
            code = self.exit_code()
            if code is not None:
                return code
            if self.spec.log is not None:
                _cut_log(self.spec.log)
            await _ended_within(self.pid, _WATCH_SECONDS)

    async def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, wait for it and its descendants, kill them after `grace` seconds.

        Descendants are not asked: they notice by themselves, and may have something to finish.
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
    """End the process that a pid file names, or its process group if it is gone.

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
    """Wait until processes end; after `deadline`, kill the others and wait for their end."""
    if alive := await _outlasting(processes, deadline):
        log.warning("descendants_killed", pids=[process.pid for process in alive])
        for process in alive:
            process.signal(signal.SIGKILL)
        await _outlasting(alive, time.monotonic() + _KILLED_SECONDS)


async def _ended_within(pid: int, seconds: float) -> None:
    """Return when a child process has ended or may have ended, or after `seconds`."""
    if not hasattr(os, "pidfd_open"):
        await asyncio.sleep(_LOOK_SECONDS)
        return
    try:
        ending = os.pidfd_open(pid)
    except OSError:  # The process is gone, or the system has no free descriptor.
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

    Raises NotOursError for an existing directory that others may have written to.
    """
    if path.exists():
        check_directory(path)
    else:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(path.parent)
    return path


def private_file(path: Path, content: str) -> Path:
    """Write a file that only its owner may read, completely or not at all; return `path`.

    The file is synced to disk: a server's password must survive a power cut, because the server's
    data does.
    """
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)
    return path


def sync_directory(directory: Path) -> None:
    """Sync a directory's entries to disk, so that new and renamed files survive a power cut."""
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
        # The guard keeps our user: it has to end processes of the other user.
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
            # Ctrl-C in a terminal is only for the owner, which ends its children in order.
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()
        if given != subprocess.DEVNULL:
            os.close(given)


def _pipe_with(file: Path, reader: User | None) -> int:
    """Return the reading end of a pipe with the content of a file."""
    content = file.read_bytes()
    if len(content) > _LONGEST_INPUT_BYTES:
        raise ProcessFailedError(f"{file} is longer than {_LONGEST_INPUT_BYTES} bytes.")
    to_read, to_write = os.pipe()
    if reader is not None and os.geteuid() == 0:
        # Otherwise the reader could not open /dev/stdin.
        os.fchown(to_read, reader.uid, reader.gid)
    os.write(to_write, content)
    os.close(to_write)
    return to_read


def _open_log(path: Path) -> IO[bytes]:
    _cut_log(path)
    return path.open("ab")


def _cut_log(path: Path) -> None:
    """Move the end of a log that is too long aside; its writer goes on at the start of the file."""
    size = path.stat().st_size if path.exists() else 0
    if size <= _LOG_LIMIT_BYTES:
        return
    try:
        with path.open("rb") as whole, path.with_name(path.name + ".1").open("wb") as aside:
            whole.seek(size - _LOG_LIMIT_BYTES)
            # The limit ends the copy even if the process writes faster than we read.
            aside.write(whole.read(_LOG_LIMIT_BYTES))
    except OSError as exc:
        # Most likely the disk is full, and must not be filled further.
        log.warning("log_dropped", file=str(path), reason=str(exc))
    os.truncate(path, 0)


@dataclass(frozen=True)
class _Remembered:
    """The content of a pid file."""

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
