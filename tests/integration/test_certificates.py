"""Expiring certificates and versions of clients in the status and in the console."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flower_nats.broker.connection import Connection
from flower_nats.model.certificates import in_file, shown
from flower_nats.store.server_certificate import certificate_at
from flower_nats_cli.status_text import status_lines
from harness.certificates import create_server_certificates
from tests.integration.consoles import running_console
from tests.integration.superlinks import superexec_heard


def of(who: str, *, days: float) -> dict[str, str]:
    """Return a gateway's report of a certificate that expires in so many days."""
    ends = datetime.now(UTC) + timedelta(days=days, minutes=1)
    return {"of": who, "names": "CN=example", "expires_at": ends.isoformat()}


async def test_certificates_and_versions_of_clients_are_told(
    connection: Connection, nats_url: str, pg_dsn: str, tmp_path: Path
) -> None:
    shown_before = create_server_certificates(tmp_path).certificate
    gateway = {"balancer_certificates": (shown_before,)}
    async with running_console(nats_url, pg_dsn, gateway) as console:
        superlink = console.gateway.superlink
        await console.gateway.node()
        await superlink.announce_gateway(
            superexec_heard(),
            certificates=[of("gateways", days=12), of("old gateways", days=-3)],
            clis={"1.42.0": 3, "1.30.0": 1},
        )

        status = await console.json("/overview.json")
        page = (await console.http.get("/")).text
        lines = "\n".join(
            status_lines(
                {**status, "nats": ["nats"], "healthy": False, "broker": {"healthy": True}}
            )
        )

    [problem] = status["problems"]
    assert problem.startswith("the certificate of old gateways (CN=example) expired on ")
    assert "expires on" in " ".join(status["warnings"])
    assert {(one["client"], one["version"], one["count"]) for one in status["clients"]} >= {
        ("CLI", "1.42.0", 3),
        ("CLI", "1.30.0", 1),
        ("SuperExec", "1.42.0", 1),
    }
    assert status["state"] == "bad"
    assert "Of the balancer until" in page
    assert "of the balancer: until" in lines
    assert "3 CLI 1.42.0" in page
    assert "in 12 days" in page
    assert "of old gateways: until" in lines
    assert "HAS EXPIRED" in lines
    assert "3 CLI 1.42.0" in lines


async def test_the_certificate_of_postgresql_is_seen(tmp_path: Path) -> None:
    """The PostgreSQL of the tests has no TLS: this stand-in speaks only the first bytes."""
    made = create_server_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == bytes.fromhex("0000000804d2162f")
        writer.write(b"S")
        await writer.start_tls(context)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        seen = await certificate_at(host, port)
    nobody = await certificate_at(host, port)

    assert shown(seen, "PostgreSQL") == in_file(made.certificate, "PostgreSQL")
    assert nobody is None
