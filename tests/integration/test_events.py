"""Events of the runtime: each exists once, and each person sees only the permitted events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.model.account import Role
from flower_nats.model.errors import Unavailable
from flower_nats.model.event import KINDS
from flower_nats.store import runtime_events
from flower_nats.store.connection import Database
from flower_nats.store.migrate import migrate
from flower_nats.store.replicas import Replicas
from flower_nats.store.runtime_events import RuntimeEvents, note
from flower_nats.superlink.housekeeping import replica_watch, room_watch, runtime_watch
from flower_nats.superlink.housekeeping.replica_watch import ReplicaWatch
from flower_nats.superlink.housekeeping.room_watch import RoomWatch
from flower_nats.superlink.housekeeping.runtime_watch import RuntimeWatch
from flower_nats.wire import fleet_pb2 as fleet
from harness.children import PATIENCE
from tests.faults.disk import NoDisk
from tests.faults.small_disk import small_disk
from tests.integration.consoles import Console, running_console
from tests.integration.people import Person
from tests.integration.superlinks import Superlink, running_superlink


@pytest.fixture
async def console(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Console]:
    async with running_console(nats_url, pg_dsn) as console:
        yield console


async def kinds(database: Database, *groups: str, seen_by: str | None = None) -> list[str]:
    found = await RuntimeEvents(database).newest(1_000, seen_by=seen_by)
    return [one.kind for one in reversed(found) if not groups or one.what.group in groups]


async def test_a_node_and_a_run_leave_their_events_on_the_page(console: Console) -> None:
    node = await console.gateway.node()
    app = await console.gateway.server_app()
    own = {"origin": f"http://{console.address}"}
    await console.http.post(f"/runs/{app.run_id}/stop", headers=own)
    await node.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=node.node_id))

    found = await console.json("/events.json")

    told = [one["kind"] for one in reversed(found["events"])]
    wanted = ["node_online", "run_started", "run_stopped", "node_offline"]
    assert [one for one in told if one in wanted] == wanted
    assert told.count("replica_started") == 2
    assert set(told) <= set(KINDS)
    [stopped] = (await console.json("/events.json?kind=run_stopped"))["events"]
    assert stopped["run_id"] == str(app.run_id)
    assert stopped["federation"] == "@none/default"
    nodes = await console.json("/events.json?kind=nodes&federation=@none/default")
    assert {one["group"] for one in nodes["events"]} == {"nodes"}
    page = await console.http.get("/events?kind=run_stopped")
    assert f'href="/runs/{app.run_id}"' in page.text
    assert len(page.content) < 200_000


async def test_bad_filters_are_told_from_good_ones(console: Console) -> None:
    for query in ("kind=<b>", "page=-1", "page=9999999999999999999999", "federation=%00'<b>"):
        answer = await console.http.get(f"/events?{query}")
        assert answer.status_code == 200, query
        assert "<b>" not in answer.text


async def test_what_several_superlinks_see_is_noted_once(database: Database) -> None:
    async def see(kind: str, age: float = 0.0, after: str | None = None) -> bool:
        return await note(database, kind, subject="nats", age=age, after=after)

    assert not await see("nats_back", after="nats_away"), "nothing was away"
    seen = await asyncio.gather(*(see("nats_away", age=9 + one) for one in range(4)))
    assert seen.count(True) == 1
    back = await asyncio.gather(*(see("nats_back", after="nats_away") for _ in range(4)))
    assert back.count(True) == 1
    assert not await see("nats_away", age=60), "it belongs to the outage that is over"
    assert await see("nats_away")
    assert await kinds(database) == ["nats_away", "nats_back", "nats_away"]


async def test_events_are_bounded_by_number_and_age(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_events, "KEEP_MOST", 5)
    await note(database, "housekeeping", details="long ago", age=100 * 86400)
    for number in range(7):
        await note(database, "housekeeping", details=f"{number}\0<b>{'x' * 999}")

    assert await RuntimeEvents(database).trim() == 3
    found = await RuntimeEvents(database).newest(10)
    assert [one.details[0] for one in found] == ["6", "5", "4", "3", "2"]
    assert len(found[0].details) == 500


async def test_a_replica_that_dies_and_one_that_leaves_are_told_apart(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_watch, "_LOST_AFTER", 0.2)
    replicas, hears = Replicas(database), [False]
    for name in ("dies", "leaves"):
        await replicas.announce("gateway", name, 1.0, about={"host": "alpha", "pid": 7})
    watch = ReplicaWatch(replicas, lambda: hears[0])
    await replicas.leave("gateway", "leaves")

    async def look_until(condition: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while condition() not in await kinds(database):
                await watch.look()
                await asyncio.sleep(0.05)

    for _ in range(10):
        await asyncio.sleep(0.05)
        await watch.look()
    assert "replica_lost" not in await kinds(database), "nobody could be heard"
    hears[0] = True
    await look_until(lambda: "replica_lost")
    await watch.look()
    await replicas.announce("gateway", "dies", 1.0, about={"host": "alpha", "pid": 7})

    told = await kinds(database)
    assert told == [*2 * ["replica_started"], "replica_drained", "replica_lost", "replica_back"]
    [lost] = [one for one in await RuntimeEvents(database).newest(9) if one.kind == "replica_lost"]
    assert lost.text == "Replica lost: gateway dies. On alpha, process 7."


async def test_a_gateway_that_is_killed_and_started_again_is_told(database: Database) -> None:
    replicas = Replicas(database)
    for since in (1.5, 1.5, 2.5):
        await replicas.announce("gateway", "alpha", since)

    assert await kinds(database) == ["replica_started", "replica_back"]
    [back, _] = await RuntimeEvents(database).newest(2)
    assert "had died" in back.details


async def test_outages_of_nats_and_postgresql_are_told_with_their_begin_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_watch, "_OUTAGE", 0.0)
    nats, postgres = NatsServer(tmp_path / "nats"), PostgresServer(tmp_path / "postgres")
    connection = await Connection.connect([await nats.start()], "test")
    database = Database(await postgres.start(), 2, patience=0)
    await database.open()
    await migrate(database)
    trials, room = StreamTrials(connection), RoomWatch(connection, None)
    watch = RuntimeWatch(database, connection, trials, room)

    async def look() -> None:
        with suppress(Unavailable):
            await database.fetch_one("SELECT 1")
        watch.look()
        await watch.store()

    async def look_until(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await look()
                await asyncio.sleep(0.05)

    await look()
    await nats.stop()
    await look_until(lambda: not connection.is_connected)
    await look()
    await nats.start()
    await look_until(lambda: connection.is_connected)
    await look()
    await postgres.stop()
    await look_until(lambda: database.away_since is not None)
    await look()
    await postgres.start()
    await look_until(lambda: database.away_since is None)
    await look()

    assert await kinds(database) == ["nats_away", "nats_back", "postgresql_away", "postgresql_back"]
    await database.close()
    await connection.close()
    await asyncio.gather(nats.stop(), postgres.stop())


async def test_a_disk_that_is_full_is_told_on_the_overview_and_as_an_event(
    tmp_path: Path, nats_url: str, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_watch, "_LOOK_EVERY", 0.1)
    try:
        with small_disk(tmp_path, 40) as disk:
            async with running_console(nats_url, pg_dsn, watch_disk=disk.path) as console:
                await until_newest(console, "replica_started")
                disk.fill()
                low = await until_newest(console, "room_low")
                overview = await console.json("/overview.json")
                disk.free()
                await until_newest(console, "room_back")
    except NoDisk as exc:
        pytest.skip(str(exc))

    assert low["text"].endswith("GB are free.")
    assert overview["answer"].startswith("No:")
    [room] = [one for one in overview["findings"] if one["subject"] == "Room: disk"]
    assert (room["state"], room["remedy"]) == ("bad", "Make room.")


async def until_newest(console: Console, kind: str) -> dict[str, Any]:
    """Wait until the newest event of servers and disks has this kind, and return it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = (await console.json("/events.json"))["events"]
            if found and found[0]["kind"] == kind:
                newest: dict[str, Any] = found[0]
                return newest
            await asyncio.sleep(0.1)


@pytest.fixture
async def superlink(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        yield superlink


async def test_people_see_the_events_of_their_federations_and_nodes_alone(
    superlink: Superlink,
) -> None:
    ada, eve = [await Person.come(superlink, name) for name in ("ada", "eve")]
    boss = await Person.come(superlink, "boss", Role.OPERATOR)
    federation = await ada.create("hospitals")
    await ada.register(federation)
    await ada.start_run(federation)
    database = superlink.database

    own = await kinds(database, seen_by=ada.account_id)

    assert own == [
        *2 * ["federation_changed"],
        *("node_registered", "node_online", "federation_changed"),
    ]
    assert await kinds(database, seen_by=eve.account_id) == []
    await ada.invite(eve, federation)
    assert await kinds(database, seen_by=eve.account_id) == [*own, "federation_changed"]
    assert set(await kinds(database)) > set(own)
    assert boss.logged_in.account.is_operator
