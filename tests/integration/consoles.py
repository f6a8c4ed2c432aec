"""A console for tests, with a superlink and a gateway."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx

from flower_nats.settings import ConsoleSettings
from flower_nats_console.process import serve
from harness.certificates import ServerCertificates
from harness.children import PATIENCE
from tests.integration.gateways import Gateway, free_address, running_stack


@dataclass
class Console:
    """A console, and the gateway of its runtime."""

    http: httpx.AsyncClient
    gateway: Gateway
    address: str

    async def json(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def running_console(
    nats_url: str,
    dsn: str,
    gateway: dict[str, Any] | None = None,
    tls: ServerCertificates | None = None,
    **superlink: Any,
) -> AsyncIterator[Console]:
    """Run a superlink, a gateway and a console in this process; all end with the context."""
    async with (
        running_stack(nats_url, dsn, superlink=superlink, **(gateway or {})) as front,
        console_of(nats_url, tls) as http,
    ):
        yield Console(http, front, http.base_url.netloc.decode())


@asynccontextmanager
async def console_of(
    nats_url: str, tls: ServerCertificates | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Run only a console in this process, with a client for it; both end with the context."""
    address, stop = free_address(), asyncio.Event()
    settings = ConsoleSettings((nats_url,), address=address)
    if tls is not None:
        settings = replace(settings, certificate=tls.certificate, key=tls.key, only_accounts=True)
    serving = asyncio.create_task(serve(settings, stop))
    scheme, verify = ("http", True) if tls is None else ("https", trusting(tls))
    async with httpx.AsyncClient(
        base_url=f"{scheme}://{address}", timeout=20, verify=verify
    ) as http:
        async with asyncio.timeout(PATIENCE):
            while not await _answers(http):
                assert not serving.done(), serving.result()
                await asyncio.sleep(0.05)
        yield http
    stop.set()
    await serving


def trusting(made: ServerCertificates) -> ssl.SSLContext:
    """Return an SSL context that trusts the authority of these certificates."""
    return ssl.create_default_context(cafile=str(made.ca_certificate))


async def _answers(http: httpx.AsyncClient) -> bool:
    try:
        await http.get("/static/console.css")
    except httpx.TransportError:
        return False
    return True
