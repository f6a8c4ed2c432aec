"""A replica does each piece of housekeeping, even after another replica has died at it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from flower_nats.stopping import end_tasks
from flower_nats.store.connection import Database
from flower_nats.store.leases import Leases
from flower_nats.superlink.housekeeping import housekeeper as housekeeping
from flower_nats.superlink.housekeeping.housekeeper import Housekeeping, Piece
from harness.children import PATIENCE
from harness.processes import Replica, kill
from harness.waiting import until


async def holders(database: Database) -> dict[str, str]:
    """Return the holder of each piece of housekeeping."""
    rows = await database.fetch_all("SELECT name, holder FROM lease WHERE expires_at > now()")
    return {row["name"]: row["holder"] for row in rows}


async def test_a_bug_in_one_piece_postpones_that_piece_and_ends_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = CapturingLogger()
    monkeypatch.setattr(housekeeping, "log", logs)
    monkeypatch.setattr(housekeeping, "_AFTER_BUG", 0.1)
    done: list[str] = []

    async def stumble() -> None:
        done.append("stumbled")
        if done.count("stumbled") == 1:
            raise KeyError("a record that nobody expected")
        if done.count("stumbled") == 2:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
                raise ZeroDivisionError

    async def go_on() -> None:
        done.append("went on")

    pieces = [Piece("poisoned", 0.1, stumble), Piece("sound", 0.1, go_on)]
    running = asyncio.create_task(Housekeeping(Leases(database), "one", pieces).run())

    async def all_went_on() -> bool:
        assert not running.done(), running.exception()
        return done.count("stumbled") > 2 and done.count("went on") > 2

    await until(all_went_on)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [call.args for call in logs.calls] == [("housekeeping_failed",)] * 2
    assert {call.kwargs["piece"] for call in logs.calls} == {"poisoned"}
    assert all(isinstance(call.kwargs["exc_info"], ExceptionGroup) for call in logs.calls)


async def test_housekeeping_ends_though_a_piece_has_missed_that_it_should(
    database: Database,
) -> None:
    begun = asyncio.Event()

    async def miss_one_cancel() -> None:
        with suppress(asyncio.CancelledError):
            begun.set()
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    pieces = [Piece("deaf", 0.1, miss_one_cancel)]
    running = asyncio.create_task(Housekeeping(Leases(database), "one", pieces).run())
    await begun.wait()

    async with asyncio.timeout(PATIENCE):
        await end_tasks([running])


async def test_a_piece_is_done_by_one_replica_and_as_often_as_it_should(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_CLAIM_EVERY", 0.1)
    done: list[str] = []

    def keep(holder: str) -> asyncio.Task[None]:
        async def note() -> None:
            done.append(holder)

        pieces = [Piece("rare", 3600.0, note), Piece("frequent", 0.3, note)]
        return asyncio.create_task(Housekeeping(Leases(database), holder, pieces).run())

    first = keep("first")

    async def often() -> bool:
        return len(done) > 4

    await until(often)
    second = keep("second")
    done.clear()
    await until(often)
    for one in (first, second):
        one.cancel()

    assert set(done) == {"first"}
    assert set((await holders(database)).values()) == {"first"}


async def test_a_piece_is_looked_at_less_often_while_there_is_nothing_to_do(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_CLAIM_EVERY", 0.05)
    done: list[str] = []
    is_needed = asyncio.Event()

    async def asked() -> bool:
        done.append("asked")
        return is_needed.is_set()

    async def work() -> None:
        done.append("worked")

    pieces = [Piece("tasks", 0.01, work, asked)]
    running = asyncio.create_task(Housekeeping(Leases(database), "one", pieces).run())

    async def often(what: str) -> bool:
        return done.count(what) > 3

    await until(lambda: often("asked"))
    assert "worked" not in done
    is_needed.set()
    await until(lambda: often("worked"))
    running.cancel()


async def test_every_piece_of_a_superlink_that_was_killed_is_taken_over(
    nats_url: str, database: Database, pg_dsn: str, tmp_path: Path
) -> None:
    secrets = {"FLOWER_NATS_SUPERLINK_NATS": nats_url, "FLOWER_NATS_SUPERLINK_DATABASE": pg_dsn}
    command = ["superlink", "--isolation", "process"]
    first, second = (
        Replica(name, command, secrets, tmp_path, "superlink_ready") for name in ("one", "two")
    )
    try:
        await first.start()

        async def first_has_all() -> bool:
            return len(await holders(database)) >= 5

        await until(first_has_all)
        before = await holders(database)
        await second.start()
        await kill(first)

        async def second_has_all() -> bool:
            now = await holders(database)
            # A piece that the first one had not begun may be there as well.
            return now.keys() >= before.keys() and not set(now.values()) & set(before.values())

        await until(second_has_all)
    finally:
        await asyncio.gather(first.stop(), second.stop())
