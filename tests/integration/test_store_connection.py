"""The connection to PostgreSQL: faults that it hides, waits out or raises."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.model.errors import Unavailable
from flower_nats.store import pool
from flower_nats.store.connection import Database, StoreError, Transaction
from flower_nats.store.durability import durability
from harness.children import PATIENCE
from harness.postgres_pair import PostgresPair

BACKENDS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'flower-nats' AND datname = current_database()
"""


@pytest.fixture
async def database(pg_dsn: str) -> AsyncIterator[Database]:
    database = Database(pg_dsn)
    await database.open()
    await database.execute("CREATE TABLE counted (id bigint PRIMARY KEY, more bigint[])")
    yield database
    await database.close()


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
async def test_an_id_of_64_bits_comes_back_as_it_went(database: Database, number: int) -> None:
    await database.execute(
        "INSERT INTO counted VALUES (%(id)s, %(more)s)", id=number, more=[number, 7]
    )

    row = await database.fetch_one("SELECT * FROM counted WHERE id = %(id)s", id=number)
    listed = await database.fetch_all(
        "SELECT id FROM counted WHERE id = ANY (%(ids)s::bigint[])", ids=[number]
    )

    assert row == {"id": number, "more": [number, 7]}
    assert listed == [{"id": number}]


async def test_lost_connections_are_waited_out(database: Database, pg_dsn: str) -> None:
    # Given a pool of connections that the server has closed.
    await asyncio.gather(*(database.fetch_one("SELECT pg_sleep(0.05)") for _ in range(5)))
    with psycopg.connect(pg_dsn, autocommit=True) as admin:
        admin.execute(BACKENDS)

    # Then no caller notices.
    rows = await asyncio.gather(*(database.fetch_one("SELECT 1 AS one") for _ in range(10)))

    assert rows == [{"one": 1}] * 10


async def test_a_transaction_starts_anew_when_its_connection_is_lost(
    database: Database, pg_dsn: str
) -> None:
    attempts = 0

    async def work(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await transaction.execute("INSERT INTO counted VALUES (%(id)s)", id=attempts)
        if attempts == 1:
            with psycopg.connect(pg_dsn, autocommit=True) as admin:
                admin.execute(BACKENDS)
        await transaction.execute("INSERT INTO counted VALUES (%(id)s)", id=10 + attempts)

    await database.transaction(work)

    rows = await database.fetch_all("SELECT id FROM counted ORDER BY id")
    assert [row["id"] for row in rows] == [2, 12]


async def test_two_transactions_in_a_deadlock_both_get_through(database: Database) -> None:
    for number in (1, 2):
        await database.execute("INSERT INTO counted VALUES (%(id)s)", id=number)
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        tried = False

        async def work(transaction: Transaction) -> None:
            nonlocal tried
            again, tried = tried, True
            update = "UPDATE counted SET more = '{}' WHERE id = %(id)s"
            await transaction.execute(update, id=first)
            if not again:
                await both_hold_one.wait()
            await transaction.execute(update, id=second)

        await database.transaction(work)

    await asyncio.gather(lock(1, 2), lock(2, 1))


async def test_a_newer_replica_may_add_a_column_while_we_are_at_work(
    database: Database, pg_dsn: str
) -> None:
    # Given connections with a prepared plan of the query.
    query = "SELECT * FROM counted WHERE id = %(id)s"
    await database.execute("INSERT INTO counted VALUES (1)")
    for _ in range(20):
        await asyncio.gather(*(database.fetch_one(query, id=1) for _ in range(4)))

    with psycopg.connect(pg_dsn, autocommit=True) as newer:
        newer.execute("ALTER TABLE counted ADD COLUMN added text")

    rows = await asyncio.gather(*(database.fetch_one(query, id=1) for _ in range(20)))
    assert rows == [{"id": 1, "more": None, "added": None}] * 20


async def test_a_statement_that_cannot_work_is_not_tried_again(database: Database) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        await database.fetch_one("SELECT * FROM nowhere")
    with pytest.raises(StoreError, match="duplicate key"):
        for _ in range(2):
            await database.execute("INSERT INTO counted VALUES (%(id)s)", id=1)


async def test_an_error_in_a_transaction_leaves_nothing_behind(database: Database) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO counted VALUES (%(id)s)", id=1)
        raise KeyError

    with pytest.raises(KeyError):
        await database.transaction(work)

    assert await database.fetch_all("SELECT * FROM counted") == []


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing")

    with pytest.raises(Unavailable):
        await database.open(patience=0.2)


async def test_a_server_that_is_away_when_we_start_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CONNECT", 0.1)
    server = PostgresServer(tmp_path)
    await server.start()
    database = Database(server.dsn)
    await server.stop()
    try:
        opening = asyncio.create_task(database.open(patience=60))
        # Longer than one try to connect, and than the pool's own tries.
        await asyncio.sleep(2)
        await server.start()
        async with asyncio.timeout(PATIENCE):
            await opening
        assert await database.fetch_one("SELECT 1 AS one") == {"one": 1}
    finally:
        await database.close()
        await server.stop()


async def test_a_server_that_ends_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path)
    await server.start()
    hasty, patient = Database(server.dsn, patience=0.5), Database(server.dsn, patience=10)
    try:
        await asyncio.gather(hasty.open(), patient.open())
        await server.stop()
        with pytest.raises(Unavailable):
            await hasty.fetch_one("SELECT 1 AS one")
        waiting = asyncio.create_task(patient.fetch_one("SELECT 1 AS one"))
        await server.start()
        assert await waiting == {"one": 1}
    finally:
        await asyncio.gather(hasty.close(), patient.close())
        await server.stop()


async def test_what_the_server_promises_can_be_read(database: Database) -> None:
    promise = await durability(database)

    assert promise["synced"] is True
    assert promise["standbys"] == 0
    assert promise["synchronous_standbys"] == 0


@asynccontextmanager
async def opened(dsn: str, max_connections: int = 1) -> AsyncIterator[Database]:
    database = Database(dsn, max_connections)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture(scope="module")
def pair_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Connection string of a primary with a synchronous standby."""
    pair = PostgresPair(tmp_path_factory.mktemp("pair"))
    try:
        asyncio.run(pair.start())
        yield pair.dsn
    finally:
        asyncio.run(pair.stop())


async def name_synchronous(primary: Database, names: str, synchronous: int) -> None:
    """Set the names of synchronous standbys, and wait until so many are synchronous."""
    await primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    await primary.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(PATIENCE):
        while (await durability(primary))["synchronous_standbys"] != synchronous:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("names", "synchronous"), [("*", 1), ("", 0), ("ANY 1 (*)", 1)])
async def test_a_standby_counts_as_synchronous_where_it_is(
    pair_dsn: str, names: str, synchronous: int
) -> None:
    async with opened(pair_dsn) as primary:
        await name_synchronous(primary, names, synchronous)

        assert (await durability(primary))["standbys"] == 1


@pytest.mark.parametrize("setting", ["local", "off"])
async def test_a_standby_that_no_commit_waits_for_is_not_synchronous(
    pair_dsn: str, setting: str
) -> None:
    async with opened(pair_dsn) as primary:
        await name_synchronous(primary, "*", 1)
        await primary.execute(f"SET synchronous_commit = {setting}")

        promise = await durability(primary)

    assert (promise["standbys"], promise["synchronous_standbys"]) == (1, 0)


async def test_who_may_not_see_what_standbys_are_says_so(pair_dsn: str) -> None:
    """PostgreSQL shows a role without rights only that there is a standby."""
    async with opened(pair_dsn) as primary:
        await name_synchronous(primary, "*", 1)
        await primary.execute("CREATE ROLE ordinary")
        await primary.execute("SET ROLE ordinary")
        unseen = await durability(primary)
        await primary.execute("RESET ROLE")
        await primary.execute("GRANT pg_read_all_stats TO ordinary")
        await primary.execute("SET ROLE ordinary")
        seen = await durability(primary)

    assert (unseen["standbys"], unseen["synchronous_standbys"]) == (1, None)
    assert (seen["standbys"], seen["synchronous_standbys"]) == (1, 1)


BURST = 3_000
"""Callers at once: so many may wait for a database that is slow for a few seconds."""


async def all_connections_serve(database: Database, number: int) -> None:
    """Wait until so many transactions are open at the same time."""
    all_there = asyncio.Barrier(number)

    async def wait(_: Transaction) -> None:
        await all_there.wait()

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(database.transaction(wait) for _ in range(number)))


async def test_callers_that_give_up_take_no_connection_with_them(pg_dsn: str) -> None:
    async with opened(pg_dsn, max_connections=4) as database:

        async def give_up_soon() -> None:
            # At the time at which the patience of other callers ends, too.
            async with asyncio.timeout(random.uniform(2.9, 3.6)):
                await database.fetch_one("SELECT pg_sleep(0.05)")

        burst = (give_up_soon() for _ in range(BURST))
        outcomes = await asyncio.gather(*burst, return_exceptions=True)

        assert {type(one) for one in outcomes} <= {type(None), TimeoutError, Unavailable}
        await all_connections_serve(database, 4)


async def test_who_comes_when_too_many_wait_hears_so_at_once(pg_dsn: str) -> None:
    held = 4 + pool.MOST_WAITING
    async with opened(pg_dsn, max_connections=4) as database:
        asked = [asyncio.create_task(database.fetch_one("SELECT 1 AS one")) for _ in range(BURST)]
        first, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)

        refused = [one.exception() for one in first if one.exception()]
        assert len(refused) == BURST - held
        assert all(isinstance(one, Unavailable) for one in refused)
        # The others are served in turn.
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers.count({"one": 1}) == held


async def test_a_password_shows_in_no_error() -> None:
    dsn = urlunsplit(urlsplit("postgresql://127.0.0.1:1/x")._replace(netloc="u:secret@127.0.0.1:1"))
    database = Database(dsn)

    with pytest.raises(Unavailable) as refused:
        await database.open(patience=0.1)

    assert "secret" not in str(refused.value)
