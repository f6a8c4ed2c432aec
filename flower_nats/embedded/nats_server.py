"""One nats-server with JetStream, on a directory of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flower_nats.broker.permissions import User, accounts
from flower_nats.embedded.ports import free_ports
from flower_nats.embedded.process import (
    OwnedProcess,
    ProcessFailedError,
    ProcessSpec,
    private_directory,
    private_file,
)
from flower_nats.embedded.secret import derived, secret_in
from flower_nats.model.errors import FlowerNatsError
from flower_nats.packages import how_to_install

_ROUTES = "routes"
"""The user name for connections between members of a cluster."""

_START_SECONDS = 120.0
_POLL_SECONDS = 0.01

_KEPT_SHARE = 0.1
_KEPT_LEAST_BYTES = 128 * 1024**2
_KEPT_MOST_BYTES = 2 * 1024**3
"""Bounds of the disk room that is left to others: to PostgreSQL, which needs some tens of MB to
recover, to logs, and to the server's own recovery."""

_LEAST_BYTES = 16 * 1024**2
"""Bytes that a server may store if the disk is too small for that."""


class ServerMissingError(FlowerNatsError):
    """The program of an embedded server is not installed."""


@dataclass(frozen=True)
class Membership:
    """The place of a server in a cluster. Ports are on the loopback interface."""

    name: str
    """The server's name, unique in the cluster. It never changes, because streams refer to it."""

    client_port: int
    """Where clients connect."""

    route_port: int
    """Where the other members connect."""

    routes: Sequence[int]
    """The route ports of all members."""

    secret: str = field(repr=False)
    """The owner's password. The passwords of other users and of routes are derived from it."""


class NatsServer:
    """A nats-server that keeps its streams in `directory` and syncs before it acknowledges.

    It listens on a free port of the loopback interface, the same one after a restart. Each user has
    a password and permissions of its own (`broker.permissions`); the passwords are derived from a
    secret, which is made once per directory. A member of a cluster gets ports and secret from the
    cluster. The directory must have one owner at a time: a server that a former owner left behind
    is ended.
    """

    def __init__(
        self, directory: Path, log: Path | None = None, membership: Membership | None = None
    ) -> None:
        self._directory = directory.resolve()
        self._membership = membership
        self._port = membership.client_port if membership else 0
        self._process = OwnedProcess(
            ProcessSpec(
                name=membership.name if membership else "nats",
                command=(find_nats_server(), "--config", str(self._directory / "nats.conf")),
                log=log or self._directory / "nats.log",
                pid_file=self._directory / "nats.pid",
            )
        )

    @property
    def name(self) -> str:
        """The name in logs and for people."""
        return self._process.name

    @property
    def server_name(self) -> str:
        """The server's name in NATS."""
        return self._membership.name if self._membership else "flower-nats-embedded"

    @property
    def url(self) -> str:
        """URL of the owner, with the password. It is known once the server has started."""
        return self.url_of(User.OWNER)

    def url_of(self, user: User) -> str:
        """Return the URL of another user, with the password."""
        return f"nats://{user}:{password_of(user, self._secret)}@127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process id, 0 before the start."""
        return self._process.pid

    async def start(self) -> str:
        """Start the server, wait until it answers and return `url`.

        Raises ServerMissingError if no nats-server is installed, and ProcessFailedError with the
        end of the log if it does not come up.
        """
        private_directory(self._directory)
        await self._process.end_former()
        for leftover in self._directory.glob("*.ports"):
            leftover.unlink()
        self._port = self._port or free_ports(1)[0]
        self._write_config()
        await self._process.start()
        await self._until_ready()
        return self.url

    def exit_code(self) -> int | None:
        """Return the server's exit code, None while it runs."""
        return self._process.exit_code()

    async def wait(self) -> int:
        """Wait for the server's end and return its exit code."""
        return await self._process.wait()

    async def stop(self, grace: float = 5.0) -> None:
        """End the server, by force after `grace` seconds. Acknowledged messages are not lost."""
        await self._process.stop(grace)

    def failure(self) -> ProcessFailedError:
        """Describe how it ended."""
        return self._process.failure()

    @property
    def _store(self) -> Path:
        return self._directory / "store"

    @property
    def _secret(self) -> str:
        return self._membership.secret if self._membership else secret_in(self._directory)

    def limit(self) -> int:
        """Return the storage limit, in bytes, that the server would get if it started now.

        A server at its limit refuses to store more until messages are removed. After a full disk it
        refuses until it is restarted. So the servers on one disk must not fill it.
        """
        used = sum(_size(file) for file in self._store.rglob("*"))
        usage = shutil.disk_usage(self._store)
        kept = min(max(int(usage.total * _KEPT_SHARE), _KEPT_LEAST_BYTES), _KEPT_MOST_BYTES)
        members = len(self._membership.routes) if self._membership else 1
        return max(_LEAST_BYTES, used + (usage.free - kept) // members)

    def _write_config(self) -> None:
        # The server reads JSON, but does not know its escape sequences of four digits (\u00fc).
        content = json.dumps(self._config(), indent=2, ensure_ascii=False)
        private_file(self._directory / "nats.conf", content)

    def _config(self) -> dict[str, Any]:
        private_directory(self._store)
        return {
            "server_name": self.server_name,
            "listen": f"127.0.0.1:{self._port}",
            "ports_file_dir": str(self._directory),
            "max_payload": 8 * 1024 * 1024,
            "jetstream": {
                "store_dir": str(self._store),
                # By default, the server acknowledges up to two minutes before it syncs to disk.
                "sync_interval": "always",
                "max_file_store": self.limit(),
            },
            "accounts": accounts({user: password_of(user, self._secret) for user in User}),
            "system_account": "SYS",
            **_cluster_config(self._membership),
        }

    async def _until_ready(self) -> None:
        """Wait for the file that the server writes when it is ready for clients."""
        ports = self._directory / f"nats-server_{self._process.pid}.ports"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.exit_code() is not None:
                raise self._process.failure()
            if ports.exists():
                return
            await asyncio.sleep(_POLL_SECONDS)
        await self._process.stop()
        raise ProcessFailedError(f"nats-server was not ready within {_START_SECONDS:.0f} s.")


def _size(file: Path) -> int:
    # A running server removes files all the time.
    with suppress(FileNotFoundError):
        return file.stat().st_size if file.is_file() else 0
    return 0


def password_of(user: User, secret: str) -> str:
    """Return the password of a user; the owner's is the secret itself."""
    return secret if user is User.OWNER else derived(secret, user)


def _cluster_config(membership: Membership | None) -> dict[str, Any]:
    if membership is None:
        return {}
    password = derived(membership.secret, _ROUTES)
    return {
        "cluster": {
            "name": "flower-nats",
            "listen": f"127.0.0.1:{membership.route_port}",
            "authorization": {"user": _ROUTES, "password": password},
            "routes": [
                f"nats-route://{_ROUTES}:{password}@127.0.0.1:{port}" for port in membership.routes
            ],
        }
    }


def find_nats_server() -> str:
    """Return the path of nats-server, beside this Python (from the wheel) or on PATH.

    Raises ServerMissingError.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerMissingError(
            f"nats-server is not installed. Remedy: {how_to_install('embedded')}."
        )
    return found
