"""The log has callers that do not speak gRPC on a gRPC port, and only these callers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from flower_nats.settings import TlsFiles
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.transports import notices
from harness.certificates import create_server_certificates
from harness.children import PATIENCE
from tests.integration.gateways import Gateway, running_stack

EVENT = "connection_without_a_call"
POST = (
    b"POST /v1/fleet/register-node HTTP/1.1\r\nHost: there\r\nContent-Length: 5\r\n"
    b"Content-Type: application/protobuf\r\nflwr-package-version: 1.42.0\r\n\r\nhello"
)
HELLO = b"\x16\x03\x01\x02\x00" + bytes(512)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)


@pytest.fixture(params=["plain", "tls"])
async def gateway(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    nats_url: str,
    pg_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(notices, "_EVERY", 0.0)
    tls = None
    if request.param == "tls":
        made = create_server_certificates(tmp_path)
        tls = TlsFiles(made.certificate, made.key, made.ca_certificate)
    async with running_stack(nats_url, pg_dsn, tls=tls) as gateway:
        yield gateway


async def comes(gateway: Gateway, data: bytes, tls: ssl.SSLContext | None = None) -> None:
    host, _, port = gateway.settings.fleet_api_address.rpartition(":")
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
        writer.write(data)
        while await reader.read(4096):
            pass
        writer.close()


async def heard(lines: list[MutableMapping[str, Any]], number: int) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        while len(found := [one for one in lines if one["event"] == EVENT]) < number:
            await asyncio.sleep(0.02)
    return found


async def test_who_does_not_speak_grpc_is_named_with_the_port_it_needs(gateway: Gateway) -> None:
    tls = None
    if gateway.settings.tls:
        tls = ssl.create_default_context(cafile=str(gateway.settings.tls.ca_certificate))
        tls.check_hostname = False
        tls.set_alpn_protocols(["http/1.1"])
    with capture_logs() as lines:
        await comes(gateway, POST, tls)
        [line] = await heard(lines, 1)
        await comes(gateway, PREFACE if tls else HELLO)
        await heard(lines, 2)

    assert line["host"] == "127.0.0.1"
    assert gateway.settings.http_api_address.rpartition(":")[2] in line["remedy"]


async def test_who_speaks_grpc_is_not_named(gateway: Gateway) -> None:
    address, path = gateway.settings.fleet_api_address, BY_NAME[("Fleet", "RegisterNode")].path
    credentials = None
    if gateway.settings.tls:
        authority = gateway.settings.tls.ca_certificate.read_bytes()
        credentials = grpc.ssl_channel_credentials(authority)
    with capture_logs() as lines:
        for _ in range(3):
            channel = (
                grpc.aio.secure_channel(address, credentials)
                if credentials
                else grpc.aio.insecure_channel(address)
            )
            with pytest.raises(grpc.aio.AioRpcError):
                body = fleet.RegisterNodeFleetRequest().SerializeToString()
                call: Any = channel.unary_unary(path)
                await call(body)
            await channel.close()
        # A connection without bytes, like the health check of a balancer.
        host, _, port = address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        await comes(gateway, POST)
        found = await heard(lines, 1)

    assert len(found) == 1
