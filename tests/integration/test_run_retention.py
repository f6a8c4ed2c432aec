"""Runs that ended long ago are deleted with all their data, if an operator wants this."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.pushers import Pushers
from flower_nats.settings import SuperlinkSettings
from flower_nats.superlink import wiring
from harness.fabs import make_fab
from tests.integration.superlinks import Superlink, running_superlink
from tests.integration.test_audit import trail
from tests.integration.test_run_deletion import OTHER, end, rows, start

DAYS = 7


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def age(superlink: Superlink, run_id: int, days: int) -> None:
    """Move a run so many days into the past."""
    for statement in (
        "UPDATE run SET created_at = created_at - make_interval(days => %(days)s::integer) "
        "WHERE run_id = %(run)s",
        "UPDATE task SET finished_at = finished_at - make_interval(days => %(days)s::integer) "
        "WHERE run_id = %(run)s",
    ):
        await superlink.database.execute(statement, run=run_id, days=days)


async def housekeep(superlink: Superlink, days: int) -> bool:
    """Do this piece of housekeeping; return whether the settings have it."""
    settings = SuperlinkSettings(nats=(), database="", run_retention=days)
    database, connection = superlink.database, superlink.connection
    watched = wiring.watches(settings, database, connection)
    found = wiring.pieces(settings, database, connection, watched, Pushers())
    for piece in found:
        if piece.name == "old runs":
            await piece.work()
            return True
    return False


async def test_old_runs_go_with_all_that_is_kept_of_them_and_others_stay(
    superlink: Superlink,
) -> None:
    old = [(await start(superlink, OTHER)).run_id for _ in range(9)]
    recent = (await start(superlink, make_fab())).run_id
    waiting = (await start(superlink, make_fab())).run_id
    for run_id in (*old, recent):
        await end(superlink, run_id)
    for run_id in (*old, waiting):
        await age(superlink, run_id, DAYS + 1)
    await age(superlink, recent, DAYS - 1)
    await superlink.connection.store(subjects.log(old[0]), b"a line\n")

    assert not await housekeep(superlink, 0)
    assert (await rows(superlink))["run"] == 11
    assert await housekeep(superlink, DAYS)

    left = await superlink.database.fetch_all("SELECT run_id FROM run")
    assert {row["run_id"] for row in left} == {recent, waiting}
    counts = await rows(superlink)
    assert (counts["task"], counts["series"], counts["fab"]) == (2, 2, 1)
    assert await superlink.connection.last(subjects.LOGS_STREAM, subjects.log(old[0])) is None
    events = await trail(superlink, action="RunRetention")
    assert [(one[0], one[3]) for one in events] == [("(flower-nats)", "done")] * 2
    named = "".join(one[2] for one in events)
    assert all(str(run_id) in named for run_id in old)
