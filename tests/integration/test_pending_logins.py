"""Thousands of unconfirmed logins of strangers do not stop other people from logging in."""

from __future__ import annotations

import pytest

from flower_nats.store import logins
from flower_nats.store.connection import Database
from flower_nats.store.logins import Logins
from tests.integration.superlinks import running_superlink
from tests.integration.test_audit import ALL


async def begin(database: Database, name: str, address: str) -> None:
    assert await Logins(database).begin(name.encode(), name, address)


async def waiting(database: Database) -> set[str]:
    return {
        row["user_code"] for row in await database.fetch_all("SELECT user_code FROM device_login")
    }


async def test_the_oldest_of_the_same_address_gives_way(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "_MOST_OF_ONE", 3)
    await begin(database, "ana", "10.0.0.1")
    await begin(database, "confirmed", "10.6.6.6")
    account = "INSERT INTO account VALUES ('a', 'a', '', 'a', 'user')"
    await database.execute(account)
    await database.execute("UPDATE device_login SET account_id = 'a' WHERE user_code = 'confirmed'")

    for number in range(9):
        await begin(database, str(number), "10.6.6.6")

    assert await waiting(database) == {"ana", "confirmed", "6", "7", "8"}


async def test_where_there_are_too_many_in_all_the_address_with_most_loses_one(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "_MOST", 6)
    await begin(database, "ana", "10.0.0.1")
    for number in range(5):
        await begin(database, str(number), "10.6.6.6")

    await begin(database, "ben", "10.0.0.2")

    assert await waiting(database) == {"ana", "ben", "1", "2", "3", "4"}


async def test_strangers_who_ask_for_logins_leave_no_events(nats_url: str, pg_dsn: str) -> None:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        for _ in range(3):
            await superlink.begin_login(address="10.6.6.6")

        events = (await superlink.command("AuditEvents", **ALL))["events"]

    assert events == []
