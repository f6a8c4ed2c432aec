"""Certificates and secrets are renewed while a gateway runs: the gateway uses the new ones."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from flower_nats.broker.connection import Connection
from flower_nats.model.errors import Outcome
from flower_nats.settings import TlsFiles
from flower_nats.wire.methods import BY_NAME
from harness.certificates import create_server_certificates, in_file, shown_at
from harness.channels import HttpChannel, Refused, WireName
from harness.children import PATIENCE
from harness.superexec import superexec_proof
from tests.integration.gateways import Gateway, running_stack

_OLD, _NEW = b"the former secret, 32 bytes long", b"the coming secret, 32 bytes long"


def certificates(folder: Path) -> TlsFiles:
    folder.mkdir()
    made = create_server_certificates(folder)
    return TlsFiles(made.certificate, made.key, made.ca_certificate)


class Ports:
    """The TLS ports of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.addresses: Mapping[str, str] = {
            "http/1.1": gateway.settings.http_api_address,
            **gateway.grpc_addresses,
        }

    async def show(self) -> set[bytes]:
        """Return the certificates that the ports show to clients over HTTP and gRPC."""
        shown = [
            asyncio.to_thread(shown_at, address, name if name == "http/1.1" else "h2")
            for name, address in self.addresses.items()
        ]
        return set(await asyncio.gather(*shown))


@pytest.fixture
async def gateway(
    connection: Connection, nats_url: str, pg_dsn: str, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """A gateway with files in `used`, a link to a folder, which orchestrators make, too."""
    certificates(tmp_path / "first")
    (tmp_path / "used").symlink_to("first")
    names = ("server.pem", "server.key", "ca.crt")
    tls = TlsFiles(*(tmp_path / "used" / name for name in names))
    secret = tmp_path / "secret"
    secret.write_bytes(_OLD)
    async with running_stack(
        nats_url, pg_dsn, tls=tls, appio_tls=tls, superexec_auth_secret_file=secret
    ) as gateway:
        yield gateway


async def test_a_certificate_is_read_again_on_all_ports_once_its_key_is_there(
    gateway: Gateway, tmp_path: Path
) -> None:
    ports, used, renewed = Ports(gateway), tmp_path / "used", certificates(tmp_path / "renewed")
    former = in_file(used / "server.pem")
    assert await ports.show() == {former}

    with capture_logs() as logs:
        shutil.copy(renewed.ca_certificate, used / "ca.crt")
        shutil.copy(renewed.certificate, used / "server.pem")
        assert await ports.show() == {former}
        assert await ports.show() == {former}
        shutil.copy(renewed.key, used / "server.key")
        assert await ports.show() == {in_file(renewed.certificate)}

    assert {one["event"] for one in logs} >= {"files_not_usable", "files_read_again"}
    await assert_served(gateway, renewed)


async def test_a_link_to_other_certificates_is_followed(gateway: Gateway, tmp_path: Path) -> None:
    renewed = certificates(tmp_path / "renewed")
    ports = Ports(gateway)
    assert await ports.show() == {in_file(tmp_path / "first" / "server.pem")}

    link = tmp_path / "another"
    link.symlink_to("renewed")
    link.rename(tmp_path / "used")

    assert await ports.show() == {in_file(renewed.certificate)}
    await assert_served(gateway, renewed)


async def assert_served(gateway: Gateway, tls: TlsFiles) -> None:
    """Call over both wires, and trust only these certificates."""
    method = BY_NAME[("Control", "ListNodes")]
    trust = ssl.create_default_context(cafile=str(tls.ca_certificate))
    http = HttpChannel(gateway.settings.http_api_address, trust)
    await http.unary(method, b"")
    await http.close()
    credentials = grpc.ssl_channel_credentials(tls.ca_certificate.read_bytes())
    async with grpc.aio.secure_channel(
        gateway.settings.control_api_address, credentials
    ) as channel:
        call: Any = channel.unary_unary(method.path)
        await call(b"", timeout=PATIENCE)


@pytest.fixture
async def open_gateway(
    connection: Connection, nats_url: str, pg_dsn: str, tmp_path: Path, wire: WireName
) -> AsyncIterator[Gateway]:
    secret = tmp_path / "secret"
    secret.write_bytes(_OLD + b"\n")
    async with running_stack(nats_url, pg_dsn, wire, superexec_auth_secret_file=secret) as gateway:
        yield gateway


async def test_a_secret_gives_way_to_another_while_both_are_in_use(
    open_gateway: Gateway, tmp_path: Path
) -> None:
    gateway, file = open_gateway, tmp_path / "secret"
    method = BY_NAME[("Runtime", "GetRun")]

    async def served(secret: bytes) -> bool:
        proof = superexec_proof(secret, method, gateway.wire)
        try:
            await gateway.call_bytes("Runtime", method.name, b"", proof)
        except Refused as refused:
            # A caller with the secret is told that there is no such run.
            return refused.outcome is not Outcome.UNAUTHENTICATED
        return True

    # The secret of a SuperExec may end with the line break of its file, or without it.
    assert await served(_OLD + b"\n") and await served(_OLD)
    assert not await served(_NEW)

    file.write_bytes(_NEW + b"\n" + _OLD + b"\n")
    assert await served(_OLD + b"\n") and await served(_OLD)
    assert await served(_NEW + b"\n") and await served(_NEW)

    file.write_bytes(b"")
    assert await served(_OLD) and await served(_NEW)

    file.write_bytes(_NEW)
    assert await served(_NEW)
    assert not await served(_OLD)
