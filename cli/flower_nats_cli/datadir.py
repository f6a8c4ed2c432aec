"""The directory of one `flower-nats up`: who owns it, and what lies where.

| path | holds |
|---|---|
| `up.lock` | which `up` owns the directory: its pid and start; it holds a lock as long as it lives |
| `up.json` | the addresses of a runtime that is ready, for `status` and `down` |
| `nats/` | nats-server: its configuration, secret and streams |
| `nats-<n>/`, `nats-cluster/` | instead, with three replicas: each of three servers; what they share |
| `postgres/` | PostgreSQL: its password and data |
| `flower/` | files of Flower's programs and of apps (their FLWR_HOME) |
| `balancer/` | with replicas: configuration of the balancer |
| `logs/` | output of every process |
| `run/` | pid files of the other processes; the URLs of NATS and PostgreSQL, with the passwords |
| `superexec.secret` | what the SuperExec of this runtime proves to gateways that it knows |
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from flower_nats.embedded.identity import ProcessIdentity
from flower_nats.embedded.ownership import check_directory, check_open, read_ours
from flower_nats.embedded.process import (
    end_left_by_former_owner,
    private_directory,
    private_file,
    remembered,
)
from flower_nats.model.errors import FlowerNatsError


class DirectoryInUseError(FlowerNatsError):
    """Another `flower-nats up` owns the directory."""


class StateUnreadableError(FlowerNatsError):
    """What a runtime has published about itself cannot be read."""


@dataclass(frozen=True)
class RunningState:
    """What other commands need to know of a runtime that is ready."""

    pid: int
    """The process id of `up`."""

    started_at: str
    """When it became ready, ISO 8601."""

    nats: Sequence[str]
    """URLs of its NATS servers for operators. They contain the password."""

    http_api_address: str = ""
    """`host:port` of all three APIs over HTTP; this one and each of the following is empty if off."""

    serverappio_api_address: str = ""
    """`host:port` of the ServerAppIo API over gRPC."""

    fleet_api_address: str = ""
    """`host:port` of the Fleet API over gRPC."""

    control_api_address: str = ""
    """`host:port` of the Control API over gRPC."""

    http_health_addresses: Mapping[str, str] = field(default_factory=dict)
    """`host:port` of the health pages and metrics of each process that has them, by its name."""

    for_others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What other machines are served, by the listening address."""

    console_address: str = ""
    """`host:port` of the console, empty if there is none."""

    connection: Sequence[str] = ("", "")
    """Where the installed version of `flwr` finds Control on this machine, empty if nowhere; and
    the CA certificate to trust there, empty for no TLS."""

    warnings: Sequence[str] = ()
    """What an operator has to know of these addresses."""

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses that are served, by the names that people use."""
        named = {
            "http": self.http_api_address,
            "serverappio": self.serverappio_api_address,
            "fleet": self.fleet_api_address,
            "control": self.control_api_address,
        }
        return {name: address for name, address in named.items() if address}


class DataDir:
    """A data directory."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def nats(self) -> Path:
        """Directory of nats-server."""
        return self.path / "nats"

    @property
    def postgres(self) -> Path:
        """Directory of PostgreSQL."""
        return self.path / "postgres"

    @property
    def flower(self) -> Path:
        """Directory for the files of Flower's programs and of apps."""
        return self.path / "flower"

    @property
    def balancer(self) -> Path:
        """Directory of the balancer."""
        return self.path / "balancer"

    @property
    def logs(self) -> Path:
        """Directory of what processes put out."""
        return private_directory(self.path / "logs")

    def log_of(self, process: str) -> Path:
        """Return the file that takes a process's output."""
        return self.logs / f"{process}.log"

    def pid_file_of(self, process: str) -> Path:
        """Return the file that remembers a process."""
        return private_directory(self._run) / f"{process}.pid"

    def keep_secret(self, name: str, content: str) -> str:
        """Write a secret to a file that only its owner can read; return the file's path.

        A process passes its environment on, and other processes of its user may read it.
        """
        return str(private_file(private_directory(self._run) / name, content))

    def kept_secret(self, name: str) -> str:
        """Return what `keep_secret` wrote. Raises OSError."""
        return read_ours(self._run / name, secret=True)

    def superexec_secret(self) -> Path:
        """Return the file with the secret of this runtime's own SuperExec, made at the first call."""
        path = self.path / "superexec.secret"
        if not path.exists():
            private_file(path, secrets.token_urlsafe(32))
        read_ours(path, secret=True)
        return path

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the directory, which is created if needed, for the time of a `with` block.

        A directory that was created is removed again if the block fails before it stores anything
        there. Raises DirectoryInUseError, which names the owner's pid, NotOursError for a directory
        that others may have written to, and BadParameter for a path that cannot be a data
        directory.
        """
        is_new = not self.path.exists()
        with self._refused():
            private_directory(self.path)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            check_open(descriptor, self._lock)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise DirectoryInUseError(
                    f"{self.path} is in use by a running `flower-nats up` (pid {self._pid_named()}). "
                    "Nothing was started."
                ) from exc
            except OSError as exc:
                raise self._cannot_lock(exc) from exc
            os.ftruncate(descriptor, 0)
            me = ProcessIdentity.of(os.getpid())
            os.write(descriptor, f"{os.getpid()} {me.started if me else ''}".encode())
            yield
        except BaseException:
            if is_new:
                self._remove_unused()
            raise
        finally:
            os.close(descriptor)

    def _remove_unused(self) -> None:
        """Remove the directory if there is nothing in it but the lock."""
        with suppress(OSError):
            if list(self.path.iterdir()) == [self._lock]:
                self._lock.unlink()
                self.path.rmdir()

    def was_used(self) -> bool:
        """Whether an `up` has ever been started on it."""
        try:
            self._lock.lstat()
        except FileNotFoundError:
            return False
        except OSError:
            # Something is there. The command that uses it reports what is wrong.
            return True
        return True

    def owner(self) -> ProcessIdentity | None:
        """Return the `up` that owns the directory, None if nobody does.

        Raises BadParameter for a path that cannot be a data directory, and NotOursError for a
        directory that others may have written to.
        """
        if not self.was_used():
            return None
        with self._refused():
            check_directory(self.path)
            descriptor = os.open(self._lock, os.O_RDONLY)
        try:
            check_open(descriptor, self._lock)
            # A shared lock: asking does not keep the next `up` out for longer than it takes.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            # An owner that has not written its name yet has not begun.
            return self._named()
        except OSError as exc:
            raise self._cannot_lock(exc) from exc
        finally:
            os.close(descriptor)
        return None

    def publish(self, state: RunningState) -> None:
        """Tell other commands that the runtime is ready."""
        private_file(self._state, json.dumps(asdict(state), indent=2))

    def withdraw(self) -> None:
        """Tell other commands that the runtime is not ready."""
        self._state.unlink(missing_ok=True)

    def state(self) -> RunningState | None:
        """Return what a ready runtime has published; None without one.

        Raises StateUnreadableError.
        """
        owner = self.owner()
        with suppress(FileNotFoundError):
            try:
                state = _state_from(json.loads(read_ours(self._state, secret=True)))
            except (ValueError, TypeError, AttributeError) as exc:
                raise StateUnreadableError(
                    f"{self._state} was not written by flower-nats. Remedy: kill the processes that use "
                    "the directory, and start `flower-nats up` again."
                ) from exc
            # The file may be from an `up` that was killed.
            return state if owner is not None and state.pid == owner.pid else None
        return None

    def has_crashed(self) -> bool:
        """Whether the last `up` was ready, and ended without stopping its processes."""
        return self.owner() is None and self._state.exists()

    def processes(self) -> dict[str, int | None]:
        """Return the id of each process that was started, by name; None if it does not run.

        A process that has died does not run until it is started again.
        """
        found = {}
        for pid_file in sorted(self.path.glob("*/*.pid")):
            process = remembered(pid_file)
            name = pid_file.stem if pid_file.parent == self._run else pid_file.parent.name
            found[name] = process.pid if process is not None and process.is_alive() else None
        return found

    async def end_leftovers(self) -> int:
        """End what an owner that was killed may have left running; return how many there were."""
        pid_files = sorted(self.path.glob("*/*.pid"))
        ended = [await end_left_by_former_owner(pid_file) for pid_file in pid_files]
        return sum(ended)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise click.BadParameter(
                f"{self.path} cannot be used: {exc.strerror}. Remedy: choose another --data-dir.",
                param_hint="--data-dir",
            ) from exc

    def _cannot_lock(self, reason: OSError) -> click.BadParameter:
        return click.BadParameter(
            f"{self.path} cannot be used: its file system does not lock files "
            f"({reason.strerror}). Remedy: choose a --data-dir on a local disk, which PostgreSQL "
            "needs as well.",
            param_hint="--data-dir",
        )

    @property
    def _run(self) -> Path:
        return self.path / "run"

    @property
    def _lock(self) -> Path:
        return self.path / "up.lock"

    @property
    def _state(self) -> Path:
        return self.path / "up.json"

    def _named(self) -> ProcessIdentity | None:
        pid, _, started = read_ours(self._lock).partition(" ")
        if not pid.isdecimal():
            return None
        # 0.1.0 wrote its pid alone.
        return ProcessIdentity(int(pid), started) if started else ProcessIdentity.of(int(pid))

    def _pid_named(self) -> int:
        owner = self._named()
        return owner.pid if owner is not None else 0


def _state_from(published: Mapping[str, Any]) -> RunningState:
    """Read the published state of an `up` of any version: fields may be missing or unknown."""
    known = {one.name for one in fields(RunningState)}
    return RunningState(**{name: said for name, said in published.items() if name in known})


def never_started(path: Path | str, command: str = "flower-nats up") -> str:
    """Return the message for a directory in which `command` never started a runtime."""
    remedy = f"Use the --data-dir that you gave to `{command}`."
    return f"No runtime has been started in {path}. {remedy}"
