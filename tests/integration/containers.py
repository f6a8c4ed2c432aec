"""Runs the containers of a stack as plain processes, for machines without a Docker engine.

Each container has its own loopback address, so that all keep the ports of the files, and its own
folder in place of a file system. Commands, environment, configuration files and health checks come
from the Compose files. Only these values are replaced in them: names of other containers and the
container's own addresses by loopback addresses, its paths by paths in its folder. In the
balancer's configuration, the name of a service becomes one endpoint for each of its containers,
like in an answer of Docker's DNS.

PostgreSQL is the embedded server, because its image is more than a program. It listens on a Unix
socket, without TLS.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.embedded.process import private_directory, private_file
from harness.children import PATIENCE, Child, wait_until
from harness.environment import SCRIPTS, clean_environment
from tests.integration.composition import Composition, Service

# The entry points of images that have one.
_ENTRY_POINTS = {
    "flower-nats": ["flower-nats"],
    "flower-nats-superexec": ["flower-superexec"],
    "flwr/supernode": ["flower-supernode"],
}


def find_program(name: str) -> str:
    """Return the path of a program in this environment or on this machine."""
    program = shutil.which(name, path=f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}")
    assert program is not None, f"{name} is not installed"
    return program


@dataclass
class Container:
    """One container: its address, its folder and, once started, its process."""

    service: Service
    address: str
    folder: Path
    process: Child | None = None

    @property
    def running(self) -> Child:
        """The process of the container."""
        assert self.process is not None, f"{self.service.name} was not started"
        return self.process


@dataclass
class Stack:
    """A stack on loopback addresses; `start` and `stop` it."""

    composition: Composition
    compose_folder: Path
    folder: Path
    containers: list[Container] = field(init=False)

    def __post_init__(self) -> None:
        addresses = _loopback_addresses()
        self.containers = [
            Container(service, next(addresses), self.folder / f"{service.name}-{number}")
            for service in self.composition.in_order()
            for number in range(1, service.replicas + 1)
        ]
        self._postgres: PostgresServer | None = None

    def of(self, service: str) -> list[Container]:
        """Return the containers of a service."""
        return [one for one in self.containers if one.service.name == service]

    def one(self, service: str) -> Container:
        """Return the only container of a service."""
        (container,) = self.of(service)
        return container

    def start(self) -> None:
        """Start all containers in order, each after its dependencies have met their conditions."""
        healthy: set[str] = set()
        for service in self.composition.in_order():
            for name in service.dependencies.keys() - healthy:
                self._wait_until(service.dependencies[name], name)
                healthy.add(name)
            for container in self.of(service.name):
                self.start_container(container)
        for name in self.composition.services.keys() - healthy:
            self.wait_until_healthy(name)

    def start_container(self, container: Container) -> None:
        """Start or restart a container."""
        if container.service.name == "postgres":
            self._start_postgres(container)
            return
        self._fill(container)
        service, base = container.service, container.service.image.partition(":")[0]
        command = [*_ENTRY_POINTS.get(base, []), *service.command]
        container.process = Child(
            [
                find_program(command[0]),
                *(self._translated(part, container) for part in command[1:]),
            ],
            log_file=container.folder / f"{container.folder.name}.log",
            environment=self._environment(container),
        )

    def wait_until_healthy(self, service: str) -> None:
        """Wait until the health checks of all containers of a service succeed."""
        for container in self.of(service):
            if service != "postgres":
                well = partial(self._is_well, container)
                wait_until(well, PATIENCE, f"{container.folder.name} to be healthy")

    def _wait_until(self, condition: str, service: str) -> None:
        if condition == "service_healthy":
            self.wait_until_healthy(service)
            return
        assert condition == "service_completed_successfully"
        process = self.one(service).running
        wait_until(lambda: process.exit_code is not None, PATIENCE, f"{service} to end")
        assert process.exit_code == 0, process.output()

    def mount_again(self, container: Container, path: str) -> None:
        """Copy a folder of the host into a container again; each file replaces the former file."""
        source, place = container.service.mounts[path], _place(container, path)
        for file in (self.compose_folder / source).iterdir():
            draft = place.with_name(f"{file.name}.new")
            shutil.copyfile(file, draft)
            draft.rename(place / file.name)

    def run_in(self, container: Container, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, like `docker compose exec`."""
        program, *arguments = command
        return subprocess.run(
            [find_program(program), *arguments],
            env=clean_environment(self._environment(container)),
            capture_output=True,
            text=True,
            timeout=30.0,
            check=False,
        )

    def stop(self) -> None:
        """End all containers, the last one first."""
        for container in reversed(self.containers):
            if container.process is not None:
                container.process.kill_all()
        if self._postgres is not None:
            asyncio.run(self._postgres.stop())

    def _names(self) -> dict[str, str]:
        """Return the addresses of services with one container, by name."""
        alone = [one for one in self.containers if one.service.replicas == 1]
        return {one.service.name: one.address for one in alone}

    def _start_postgres(self, container: Container) -> None:
        password = container.service.environment["POSTGRES_PASSWORD"]
        private_file(private_directory(container.folder) / "password", password)
        self._postgres = PostgresServer(container.folder)
        asyncio.run(self._postgres.start())

    def _fill(self, container: Container) -> None:
        """Copy the mounts of a container into its folder."""
        container.folder.mkdir(parents=True, exist_ok=True)
        for path, source in container.service.mounts.items():
            if source.startswith("."):
                _copy(self.compose_folder / source, _place(container, path))
                for file in _place(container, path).iterdir():
                    text = self._translated_own(file.read_text(), container)
                    file.write_text(self._resolved(text) if file.suffix == ".json" else text)
            else:
                _place(container, path).mkdir(parents=True, exist_ok=True)
        secrets = self.composition.document["secrets"]
        for name in container.service.secrets:
            target = _place(container, f"/run/secrets/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.compose_folder / secrets[name]["file"], target)

    def _resolved(self, envoy_config: str) -> str:
        """Replace each endpoint that names a service by endpoints for all its containers."""
        config = json.loads(envoy_config)
        for cluster in config.get("static_resources", {}).get("clusters", []):
            (locality,) = cluster["load_assignment"]["endpoints"]
            given = [
                one["endpoint"]["address"]["socket_address"] for one in locality["lb_endpoints"]
            ]
            locality["lb_endpoints"] = [
                {"endpoint": {"address": {"socket_address": {**there, "address": address}}}}
                for there in given
                for address in self._addresses(there["address"])
            ]
        return json.dumps(config)

    def _addresses(self, host: str) -> list[str]:
        return [one.address for one in self.of(host)] or [host]

    def _environment(self, container: Container) -> dict[str, str]:
        home = {"HOME": str(container.folder), "FLWR_HOME": str(container.folder / "flwr")}
        given = container.service.environment
        return home | {key: self._translated(value, container) for key, value in given.items()}

    def _translated(self, text: str, container: Container) -> str:
        """Replace the names of other containers, then the container's own addresses and paths."""
        if self._postgres is not None and text.startswith("postgresql://"):
            there, login = urlsplit(self._postgres.dsn), urlsplit(text).netloc.rpartition("@")[0]
            return urlunsplit(there._replace(netloc=f"{login}@"))
        for name, address in self._names().items():
            # Only names before a port, and no parts of other names.
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?=:\d)", address, text)
        return self._translated_own(text, container)

    def _translated_own(self, text: str, container: Container) -> str:
        text = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1)\b", container.address, text)
        paths = "|".join(["/run/secrets", "/tmp", *container.service.mounts])
        return re.sub(rf"(?<![\w/-])({paths})\b", lambda one: str(_place(container, one[0])), text)

    def _is_well(self, container: Container) -> bool:
        process = container.running
        assert process.exit_code is None, f"{process.name} ended:\n{process.output()}"
        first, *rest = container.service.health_command
        command = [find_program(first), *(self._translated(part, container) for part in rest)]
        done = subprocess.run(
            command, env=clean_environment({}), capture_output=True, timeout=10.0, check=False
        )
        return done.returncode == 0


def _place(container: Container, path: str) -> Path:
    """Return the host's path for a path of the container."""
    return container.folder / "files" / path.lstrip("/")


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a folder; a restart of the container copies them again."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)


def _loopback_addresses() -> Iterator[str]:
    """Return addresses that other stacks on this machine are unlikely to use."""
    network = f"127.{random.randrange(16, 255)}.{random.randrange(256)}"
    return (f"{network}.{host}" for host in range(1, 255))
