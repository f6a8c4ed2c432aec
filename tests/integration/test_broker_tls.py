"""NATS over TLS: the client verifies the server, and sends no password in clear text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from flower_nats.broker.connection import Connection, NobodyListens
from flower_nats.broker.nkeys import user_key
from flower_nats.embedded.nats_server import find_nats_server
from flower_nats.model import certificates as certificates_of
from flower_nats.model.errors import Unavailable
from harness.certificates import ServerCertificates, create_server_certificates
from harness.children import Child, wait_until
from harness.environment import accepts_connections, free_port

_LOGIN = "flower:hush"

# The example in NATS's documentation.
_SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
_PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificates:
    return create_server_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(
    certificates: ServerCertificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a nats-server that speaks TLS."""
    folder, port = tmp_path_factory.mktemp("nats"), free_port()
    user, _, password = _LOGIN.partition(":")
    key = user_key(_SEED)
    assert key is not None
    hear = {"subscribe": {"allow": ["_INBOX.gateway.>"]}}
    config = {
        "listen": f"127.0.0.1:{port}",
        "authorization": {
            "users": [
                {"user": user, "password": password},
                {"nkey": key.public, "permissions": hear},
            ]
        },
        "tls": {"cert_file": str(certificates.certificate), "key_file": str(certificates.key)},
    }
    (folder / "nats.conf").write_text(json.dumps(config))
    command = [find_nats_server(), "--config", str(folder / "nats.conf")]
    process = Child(command, log_file=folder / "nats.log", environment={})
    address = f"127.0.0.1:{port}"
    try:
        wait_until(lambda: accepts_connections(address), 20.0, "nats-server")
        yield address
    finally:
        process.kill_all()


async def test_a_server_of_our_own_authority_is_spoken_to(
    server: str, certificates: ServerCertificates
) -> None:
    connection = await Connection.connect(
        [f"tls://{_LOGIN}@{server}"], "test", ca_certificate=certificates.ca_certificate
    )

    assert connection.is_connected
    [shown] = certificates_of.shown(connection.server_certificate, "NATS")
    assert shown == certificates_of.in_file(certificates.certificate, "NATS")[0]
    assert connection.server_info["tls_required"]
    await connection.close()


async def test_a_server_of_an_authority_that_is_not_trusted_is_not(
    server: str, tmp_path: Path
) -> None:
    other = create_server_certificates(tmp_path)

    for authority in (other.ca_certificate, None):
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await Connection.connect(
                [f"tls://{_LOGIN}@{server}"], "test", patience=1.0, ca_certificate=authority
            )


class _PlainServer:
    """Poses as a NATS server without TLS, like an attacker in between."""

    def __init__(self) -> None:
        self.heard = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1024}\r\n')
        while data := await reader.read(1024):
            self.heard += data
            writer.write(b"PONG\r\n")
        writer.close()


@pytest.fixture
async def plain_server() -> AsyncIterator[tuple[_PlainServer, int]]:
    plain = _PlainServer()
    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    yield plain, server.sockets[0].getsockname()[1]
    server.close()


async def test_no_login_goes_to_a_server_that_says_that_it_speaks_no_tls(
    plain_server: tuple[_PlainServer, int], certificates: ServerCertificates
) -> None:
    plain, port = plain_server

    for authority in (certificates.ca_certificate, None):
        with pytest.raises(Unavailable, match="the server speaks no TLS"):
            await Connection.connect(
                [f"tls://{_LOGIN}@127.0.0.1:{port}"],
                "test",
                patience=1.0,
                ca_certificate=authority,
            )

    assert b"hush" not in plain.heard


async def test_a_seed_in_the_place_of_a_password_signs_and_is_not_sent(
    server: str, plain_server: tuple[_PlainServer, int], certificates: ServerCertificates
) -> None:
    known = user_key(_SEED)
    assert known is not None
    assert known.public == _PUBLIC

    connection = await Connection.connect(
        [f"tls://gateway:{_SEED}@{server}"], "test", ca_certificate=certificates.ca_certificate
    )
    # Its inboxes have the name in the URL: the server lets it hear this inbox.
    with pytest.raises(NobodyListens):
        await connection.ask("anybody", b"", timeout=5.0)
    await connection.close()
    plain, port = plain_server
    deaf = await Connection.connect([f"nats://gateway:{_SEED}@127.0.0.1:{port}"], "test")
    await deaf.close()
    assert b"CONNECT" in plain.heard
    assert _SEED.encode() not in plain.heard


@pytest.mark.parametrize("word", ["hush", "", _PUBLIC, _SEED[:-1] + "A", _SEED.lower(), "SU"])
def test_what_is_no_seed_is_a_password(word: str) -> None:
    assert user_key(word) is None
