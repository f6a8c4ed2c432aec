"""Processes of the runtime that a test can kill or freeze, each by its process id."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from harness.children import PATIENCE
from harness.environment import clean_environment


class Victim(Protocol):
    """A server that the harness runs."""

    @property
    def name(self) -> str:
        """Its name in logs."""

    @property
    def pid(self) -> int:
        """Its process id."""

    async def start(self) -> Any:
        """Start it and wait until it serves."""

    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""

    async def wait(self) -> int:
        """Wait for its end."""

    async def stop(self, grace: float = 5.0) -> None:
        """End it."""


async def kill(victim: Victim) -> None:
    """Kill a process with `kill -9`."""
    os.kill(victim.pid, signal.SIGKILL)
    await victim.wait()


async def kill_all(victims: Sequence[Victim]) -> None:
    """Kill processes, and all processes that they have started, at the same moment."""
    _signal_all(victims, signal.SIGKILL)
    await asyncio.gather(*(victim.wait() for victim in victims))


def freeze_all(victims: Sequence[Victim]) -> None:
    """Freeze processes, and all processes that they have started."""
    _signal_all(victims, signal.SIGSTOP)


def _signal_all(victims: Sequence[Victim], number: signal.Signals) -> None:
    parents = [psutil.Process(victim.pid) for victim in victims]
    children = [child for parent in parents for child in parent.children(recursive=True)]
    for process in (*parents, *children):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def freeze(victim: Victim) -> None:
    """Freeze a process with `kill -STOP`: it lives, but does nothing."""
    os.kill(victim.pid, signal.SIGSTOP)


def thaw(victim: Victim) -> None:
    """Let a frozen process go on, with `kill -CONT`."""
    if victim.pid and victim.exit_code() is None:
        os.kill(victim.pid, signal.SIGCONT)


async def terminate(victim: Victim) -> None:
    """Send SIGTERM; wait until the process has ended with code 0."""
    os.kill(victim.pid, signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        code = await victim.wait()
    assert code == 0, f"{victim.name} ended with {code}"


class Replica:
    """A superlink or a gateway: `python -m flower_nats_cli.main …`."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        ready_line: str,
    ) -> None:
        self._ready_line = ready_line
        self._log = folder / f"{name}.log"
        self._process = OwnedProcess(
            ProcessSpec(
                name=name,
                command=[sys.executable, "-m", "flower_nats_cli.main", *arguments],
                environment=clean_environment(environment),
                log=self._log,
                orphan_signal=signal.SIGKILL,
            )
        )

    @property
    def name(self) -> str:
        return self._process.name

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        already = len(self.output())
        await self._process.start()
        async with asyncio.timeout(PATIENCE):
            while self._ready_line not in self.output()[already:]:
                if self.exit_code() is not None:
                    raise self._process.failure()
                await asyncio.sleep(0.05)

    def exit_code(self) -> int | None:
        return self._process.exit_code()

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, grace: float = 5.0) -> None:
        await self._process.stop(grace)

    def output(self) -> str:
        """All that the process has logged, over all its restarts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


_FLAGS = {
    "Http": "--http-api-address",
    "Runtime": "--serverappio-api-address",
    "Fleet": "--fleet-api-address",
    "Control": "--control-api-address",
}


class Gateway(Replica):
    """A gateway, with the addresses of its APIs and of its health server."""

    def __init__(
        self,
        name: str,
        addresses: Mapping[str, str],
        health: str,
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        flags = ["--insecure", "--health-server-address", health]
        for service, address in addresses.items():
            flags += [_FLAGS[service], address]
        super().__init__(name, ["gateway", *flags], environment, folder, "gateway_ready")
        self.addresses = dict(addresses)
        self._health = health

    async def is_healthy(self, timeout: float) -> bool:
        """Ask its health server, as balancers do."""
        async with grpc.aio.insecure_channel(self._health) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
