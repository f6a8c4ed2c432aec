"""A balancer in front of stand-ins for gateways, with clients over HTTP like stock clients."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.embedded.process import OwnedProcess
from flower_nats.settings import TlsFiles
from flower_nats.wire.methods import BY_NAME
from harness.certificates import create_server_certificates
from harness.environment import accepts_connections
from harness.waiting import until
from tests.integration.gateways import free_address
from tests.integration.test_balancer import upstream

GET_NODES = BY_NAME[("Runtime", "GetNodes")]
PULL_MESSAGES = BY_NAME[("Fleet", "PullMessages")]
PUSH_OBJECT = BY_NAME[("Fleet", "PushObject")]
STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]

CLIENT_SECONDS = 30.0
"""Seconds for which a stock client waits for an answer."""

CLIENT_KEEPS = 5.0
"""Seconds for which a stock client keeps an idle connection."""


@dataclass
class Front:
    """A balancer with a port for HTTP and one for each API over gRPC, and two gateways behind it."""

    balancer: Balancer
    upstreams: list[OwnedProcess]
    addresses: dict[str, str]
    client: httpx.AsyncClient
    scheme: str

    def url(self, path: str, port: str = "http") -> str:
        return f"{self.scheme}://{self.addresses[port]}{path}"

    async def call(
        self, body: bytes, path: str = GET_NODES.http_path, port: str = "http"
    ) -> httpx.Response:
        return await self.client.post(self.url(path, port), content=body)

    async def serving_pid(self) -> int:
        return int((await self.call(b"who")).content.split()[0])


@asynccontextmanager
async def front(
    directory: Path, tls: TlsFiles | None = None, *, gateways: int = 2
) -> AsyncIterator[Front]:
    names = ("http", "serverappio", "fleet", "control")
    listen = {name: free_address() for name in names}
    pairs = [(free_address(), free_address()) for _ in range(gateways)]
    upstreams = [upstream(directory, *pair) for pair in pairs]
    over_grpc, over_http = ([pair[n] for pair in pairs] for n in (0, 1))
    apis = [
        Api(name, listen[name], over_http if name == "http" else over_grpc, tls) for name in names
    ]
    balancer = Balancer(directory / "balancer", apis)
    verify: Any = True
    if tls is not None:
        verify = ssl.create_default_context(cafile=str(tls.ca_certificate))
    scheme = "http" if tls is None else "https"
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=CLIENT_SECONDS, verify=verify, limits=limits) as client:
        try:
            for one in upstreams:
                await one.start()
            await until(lambda: all(accepts_connections(one) for pair in pairs for one in pair))
            await balancer.start()
            yield Front(balancer, upstreams, listen, client, scheme)
        finally:
            await balancer.stop()
            for one in upstreams:
                await one.stop()


def certificates(folder: Path) -> TlsFiles:
    made = create_server_certificates(folder)
    return TlsFiles(made.certificate, made.key, made.ca_certificate)


@asynccontextmanager
async def grpc_channel(address: str, tls: TlsFiles | None) -> AsyncIterator[grpc.aio.Channel]:
    channel = grpc.aio.insecure_channel(address)
    if tls is not None:
        credentials = grpc.ssl_channel_credentials(tls.ca_certificate.read_bytes())
        channel = grpc.aio.secure_channel(address, credentials)
    async with channel:
        yield channel
