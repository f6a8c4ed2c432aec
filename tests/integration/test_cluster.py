"""A cluster of three NATS servers: any server may die, and stored messages have three copies."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.durability import durability
from flower_nats.broker.permissions import User
from flower_nats.broker.servers import servers_there
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.broker.streams import ensure_streams
from flower_nats.embedded.nats_cluster import NatsCluster
from flower_nats.embedded.nats_server import NatsServer, find_nats_server
from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from flower_nats.model.errors import Unavailable
from flower_nats.model.event import Event
from flower_nats.store.connection import Database
from flower_nats.store.runtime_events import RuntimeEvents
from flower_nats.superlink.housekeeping.room_watch import RoomWatch
from flower_nats.superlink.housekeeping.runtime_watch import RuntimeWatch
from harness.children import PATIENCE


@asynccontextmanager
async def running_cluster(directory: Path) -> AsyncIterator[NatsCluster]:
    cluster = NatsCluster(directory)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@asynccontextmanager
async def connected(*urls: str) -> AsyncIterator[Connection]:
    connection = await Connection.connect(urls, "test")
    try:
        yield connection
    finally:
        await connection.close()


async def kill(member: NatsServer) -> None:
    os.kill(member.pid, signal.SIGKILL)
    await member.wait()


@asynccontextmanager
async def running_lax(directory: Path) -> AsyncIterator[None]:
    """Run a member that acknowledges messages up to a minute before it syncs them."""
    config = directory / "nats.conf"
    config.write_text(
        config.read_text().replace('"sync_interval": "always"', '"sync_interval": "60s"')
    )
    command = [find_nats_server(), "--config", str(config)]
    process = OwnedProcess(ProcessSpec("lax", command, log=directory / "lax.log"))
    await process.start()
    try:
        yield
    finally:
        await process.stop()


async def copies(connection: Connection) -> int:
    return int((await connection.info(subjects.MESSAGES_STREAM))["config"]["num_replicas"])


async def test_streams_have_three_copies_each_synced(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster, connected(*cluster.urls) as connection:
        await ensure_streams(connection)

        promise = await durability(connection)

    assert (promise["replicas"], promise["sync"]) == (3, "always")
    assert promise["servers"] == dict.fromkeys(("nats-1", "nats-2", "nats-3"), "always")


async def test_members_on_one_disk_leave_room_on_it(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster:
        client = await nats.connect(cluster.urls[0])
        answers = await client.subscribe(client.new_inbox())
        await client.publish("$SYS.REQ.SERVER.PING.VARZ", b"", reply=answers.subject)
        servers = [
            json.loads((await answers.next_msg(timeout=PATIENCE)).data) for _ in cluster.members
        ]
        await client.close()

    limits = [server["data"]["jetstream"]["config"]["max_storage"] for server in servers]
    assert 0 < sum(limits) < shutil.disk_usage(data_dir).free


async def test_what_is_promised_is_read_from_every_server(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster, connected(*cluster.urls) as connection:
        await ensure_streams(connection)
        lax, gone, _ = cluster.members
        await lax.stop()
        async with running_lax(data_dir / lax.name):
            async with asyncio.timeout(PATIENCE):
                while (promise := await durability(connection))["servers"]["nats-1"] == "unknown":
                    await asyncio.sleep(0.1)
            assert promise["servers"] == {"nats-1": "60 s", "nats-2": "always", "nats-3": "always"}
            assert promise["sync"] == "60 s"

        await kill(gone)
        await lax.start()
        async with asyncio.timeout(PATIENCE):
            while (promise := await durability(connection))["servers"]["nats-1"] == "unknown":
                await asyncio.sleep(0.1)
        assert promise["servers"] == {"nats-1": "always", "nats-2": "unknown", "nats-3": "always"}
        assert promise["sync"] == "unknown"


async def test_any_one_server_may_be_killed_and_comes_back(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster, connected(*cluster.urls) as connection:
        await ensure_streams(connection)
        urls = cluster.urls
        for number, member in enumerate(cluster.members, 1):
            await kill(member)
            # The member starts again before the connection loses patience.
            await connection.store(f"fn.log.{number}", b"line")
            await member.start()
            await cluster.until_formed()

        stored = await connection.subjects(subjects.LOGS_STREAM, "fn.log.*")

    assert sorted(stored) == ["fn.log.1", "fn.log.2", "fn.log.3"]
    assert cluster.urls == urls


async def test_who_has_asked_a_leader_that_is_gone_hears_of_the_next_one(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster:
        async with connected(*cluster.urls) as connection:
            await ensure_streams(connection)

        # On a busy machine another member may become the leader before the freeze, and answer.
        while await is_answered_while_the_leader_is_frozen(cluster):
            pass


async def is_answered_while_the_leader_is_frozen(cluster: NatsCluster) -> bool:
    """Ask for a stream's message; if the request breaks off, the next leader must answer."""
    async with connected(*cluster.urls) as connection:
        leader = (await connection.info(subjects.LOGS_STREAM))["cluster"]["leader"]
    frozen, other = sorted(cluster.members, key=lambda member: member.name != leader)[:2]
    body = json.dumps({"last_by_subj": "fn.log.1"}).encode()
    async with connected(other.url) as connection:
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(PATIENCE):
                try:
                    question = f"$JS.API.STREAM.MSG.GET.{subjects.LOGS_STREAM}"
                    await connection.ask(question, body, timeout=60)
                except Unavailable as exc:
                    assert "BrokenOff" in str(exc)
                    assert await connection.last(subjects.LOGS_STREAM, "fn.log.1") is None
                    return False
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
    return True


async def test_what_is_stored_outlives_the_cluster(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster, connected(*cluster.urls) as connection:
        await ensure_streams(connection)
        await connection.store("fn.log.1", b"line")
        urls = cluster.urls
    async with running_cluster(data_dir) as again, connected(*again.urls) as connection:
        record = await connection.last(subjects.LOGS_STREAM, "fn.log.1")

    assert record is not None
    assert again.urls == urls


async def test_a_server_that_is_down_costs_no_copy(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster:
        async with connected(*cluster.urls) as connection:
            await ensure_streams(connection)
        await kill(cluster.members[0])

        # A superlink that starts at this moment knows one server, and finds two.
        async with connected(cluster.members[1].url) as connection:
            await ensure_streams(connection)
            assert await copies(connection) == 3


async def test_streams_are_made_once_the_third_server_is_there(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster:
        await kill(cluster.members[2])
        async with connected(*cluster.urls) as connection:
            making = asyncio.create_task(ensure_streams(connection))
            await cluster.members[2].start()
            await making

            assert await copies(connection) == 3


async def test_a_port_that_was_taken_is_replaced(data_dir: Path) -> None:
    NatsCluster(data_dir)
    kept = data_dir / "nats-cluster" / "ports.json"
    taken = json.loads(kept.read_text())[0][0]
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()

        async with running_cluster(data_dir) as cluster:
            urls = cluster.urls

    assert not any(url.endswith(f":{taken}") for url in urls)


@pytest.mark.parametrize("suffix", ["ports.json", "password"])
async def test_its_secrets_are_private(data_dir: Path, suffix: str) -> None:
    NatsCluster(data_dir)

    assert (data_dir / "nats-cluster" / suffix).stat().st_mode & 0o077 == 0


async def test_a_client_that_knows_one_server_finds_the_others(data_dir: Path) -> None:
    async with (
        running_cluster(data_dir) as cluster,
        connected(cluster.members[0].url) as connection,
    ):
        await ensure_streams(connection)
        for member in cluster.members[:2]:
            await kill(member)
            await connection.store("fn.log.1", b"line")
            await member.start()
            await cluster.until_formed()


def server_of(cluster: NatsCluster, connection: Connection) -> NatsServer:
    """Return the member to which a connection is connected."""
    return next(one for one in cluster.members if str(connection.server_info["port"]) in one.url)


async def test_a_request_whose_way_breaks_is_known_to_be_lost_at_once(data_dir: Path) -> None:
    async with (
        running_cluster(data_dir) as cluster,
        connected(*cluster.urls) as asking,
        connected(*cluster.urls) as asked,
    ):
        heard = asyncio.Event()

        async def say_nothing(_message: object) -> None:
            heard.set()

        await asked.subscribe("question", say_nothing)
        asking_it = asyncio.create_task(asking.ask("question", b"", timeout=600))
        async with asyncio.timeout(PATIENCE):
            while not heard.is_set():
                if asking_it.done():
                    # The other server has not heard of the subscription yet.
                    assert isinstance(asking_it.exception(), Unavailable)
                    asking_it = asyncio.create_task(asking.ask("question", b"", timeout=600))
                await asyncio.sleep(0.01)

        await kill(server_of(cluster, asking))

        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Unavailable):
                await asking_it


async def test_a_hint_that_dies_with_its_server_is_given_again(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster, connected(*cluster.urls) as giving:
        server = server_of(cluster, giving)
        others = [one.url for one in cluster.members if one is not server]
        async with connected(others[0]) as hearing:
            heard = asyncio.Event()

            async def hear(_message: object) -> None:
                heard.set()

            await hearing.subscribe("fn.wake.tasks", hear)
            os.kill(server.pid, signal.SIGSTOP)
            await giving.hint("fn.wake.tasks")
            # After this time the hint is in the stopped server's socket, not in this process.
            await asyncio.sleep(0.1)

            await kill(server)

            async with asyncio.timeout(PATIENCE):
                await heard.wait()


async def test_a_hint_is_heard_once_wherever_it_was_given(data_dir: Path) -> None:
    async with running_cluster(data_dir) as cluster, AsyncExitStack() as stack:
        said: list[tuple[str, str]] = []
        connections = {}
        for number, member in enumerate(cluster.members):
            for user in (User.SUPERLINK, User.GATEWAY, User.CONSOLE):
                name = f"{user}-{number}"
                connections[name] = await stack.enter_async_context(connected(member.url_of(user)))

                async def hear(message: Msg, name: str = name) -> None:
                    said.append((name, message.subject))

                for subject in subjects.HINTS:
                    await connections[name].subscribe(subject, hear)

        async def heard(giver: str, subject: str, *users: User) -> None:
            expected = {one for one in connections if one.partition("-")[0] in users} - {giver}
            names: list[str] = []
            # A server that does not know of a subscription yet forwards nothing to it.
            async with asyncio.timeout(PATIENCE):
                while set(names) != expected:
                    said.clear()
                    await connections[giver].hint(subject)
                    await asyncio.sleep(0.2)
                    names = [name for name, _ in said if name.partition("-")[0] in users]
            assert sorted(names) == sorted(expected)
            assert {one for _, one in said} == {subject}

        for number in range(len(cluster.members)):
            everybody = User.SUPERLINK, User.GATEWAY, User.CONSOLE
            await heard(f"superlink-{number}", subjects.event_run(1), *everybody)
            gateway = f"gateway-{number}"
            await heard(gateway, subjects.wake_node(1), User.GATEWAY, User.CONSOLE)
            await heard(gateway, subjects.event_pushes("g"), User.SUPERLINK)


async def test_a_server_that_is_lost_and_one_that_is_back_become_events(
    data_dir: Path, database: Database
) -> None:
    async with running_cluster(data_dir) as cluster, connected(*cluster.urls) as connection:
        await ensure_streams(connection)
        watch = RuntimeWatch(
            database, connection, StreamTrials(connection), RoomWatch(connection, None)
        )
        watching = asyncio.create_task(watch.run())
        events = RuntimeEvents(database)

        async def until(kind: str) -> Event:
            async with asyncio.timeout(PATIENCE):
                while True:
                    # A connection that was to the lost server makes events of its own.
                    found = await events.newest(20)
                    if named := [one for one in found if (one.kind, one.name) == (kind, "nats-3")]:
                        return named[0]
                    assert not watching.done()
                    await asyncio.sleep(0.1)

        async with asyncio.timeout(PATIENCE):
            while len(await servers_there(connection)) < 3:
                await asyncio.sleep(0.1)
        victim = cluster.members[2]
        await kill(victim)
        lost = await until("nats_server_lost")
        await victim.start()
        back = await until("nats_server_back")
        watching.cancel()

    assert (lost.name, back.name) == ("nats-3", "nats-3")
    assert lost.text == ("NATS server lost: nats-3. 2 of 3 servers are there; 2 are needed.")
