"""Runs the stock `flwr login`, and does the browser's part of a login without a browser."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from harness.certificates import ServerCertificates
from harness.children import PATIENCE
from harness.environment import clean_environment
from harness.flower import Addresses, Flower
from tests.integration.gateways import Gateway

_URL = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class StockCli:
    """The `flwr` of some version, with its own home."""

    flower: Flower
    home: Path

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command."""
        environment = self.flower.environment
        return await asyncio.create_subprocess_exec(
            environment.program("flwr"),
            *arguments,
            env=clean_environment(
                # `flwr` starts no browser; it prints the address in any case.
                {**environment.variables(self.home), "BROWSER": "true", "PYTHONUNBUFFERED": "1"}
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.home,
        )

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its exit code and its output."""
        return await ended(await self.start(*arguments))

    async def login(self) -> tuple[asyncio.subprocess.Process, str]:
        """Start `flwr login`; return its process, and the address that it shows."""
        process = await self.start("login")
        assert process.stdout is not None
        said = ""
        async with asyncio.timeout(PATIENCE):
            while line := (await process.stdout.readline()).decode():
                said += line
                if found := _URL.search(line):
                    return process, found[0]
        raise AssertionError(f"flwr login has shown no address: {said}")

    @property
    def credentials(self) -> str:
        """The credentials that `flwr` has stored."""
        return (self.home / "credentials.yaml").read_text()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Wait for the end of a command; return its exit code and the rest of its output."""
    async with asyncio.timeout(PATIENCE):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def stock_cli(
    flower: Flower, gateway: Gateway, home: Path, certificates: ServerCertificates
) -> StockCli:
    """Return a `flwr` with a connection to a gateway, by the name in its certificate."""
    settings = gateway.settings
    at = {
        name: address.replace("127.0.0.1", "localhost")
        for name, address in {
            "serverappio": settings.serverappio_api_address,
            "fleet": settings.fleet_api_address,
            "control": settings.control_api_address,
            "http": settings.http_api_address,
        }.items()
    }
    flower.write_config(home, Addresses(**at), certificates.ca_certificate)
    return StockCli(flower, home)


@asynccontextmanager
async def browser(certificates: ServerCertificates) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that follows redirects, like a browser."""
    context = ssl.create_default_context(cafile=str(certificates.ca_certificate))
    async with httpx.AsyncClient(verify=context, follow_redirects=True) as client:
        yield client


async def sign_in(
    client: httpx.AsyncClient,
    url: str,
    name: str,
    password: str,
    headers: Mapping[str, str] | None = None,
    **more: str,
) -> httpx.Response:
    """Fill in the login page at an address, and send it."""
    code = url.rpartition("code=")[2]
    form = {"code": code, "name": name, "password": password, "answer": "confirm", **more}
    return await client.post(url.partition("?")[0], data=form, headers=headers or {})
