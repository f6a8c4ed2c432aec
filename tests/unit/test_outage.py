"""A lasting fault does not fill the log."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from flower_nats import outage
from flower_nats.logs import get_logger
from flower_nats.outage import Outage


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outage, "time", clock)
    return clock


async def test_an_outage_is_a_line_when_it_begins_one_a_minute_and_one_when_it_is_over(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as lines:
        database = Outage(get_logger("test"), "database_away", "database_back")
        database.worked()
        for _ in range(600):
            database.failed("refused")
            clock.now += 0.25
        monkeypatch.setattr(outage, "_CALM", 0.0)
        database.worked()
        database.worked()
        while len(lines) < 4:
            await asyncio.sleep(0)

    told = [(line["event"], line["attempts"], line["seconds"]) for line in lines]
    assert told == [
        ("database_away", 1, 0),
        ("database_away", 241, 60),
        ("database_away", 481, 120),
        ("database_back", 600, 150),
    ]


async def test_attempts_that_fail_and_work_by_turns_are_one_outage(clock: Clock) -> None:
    with capture_logs() as lines:
        database = Outage(get_logger("test"), "database_away", "database_back")
        for _ in range(300):
            database.failed("the disk is full")
            await asyncio.sleep(0)
            database.worked()
            clock.now += 0.25

    told = [(line["event"], line["attempts"]) for line in lines]
    assert told == [("database_away", 1), ("database_away", 241)]


async def test_the_next_outage_is_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_CALM", 0.0)
    with capture_logs() as lines:
        broker = Outage(get_logger("test"), "broker_away", "broker_back")
        for number in (1, 2):
            broker.failed("refused")
            broker.worked()
            while len(lines) < 2 * number:
                await asyncio.sleep(0)

    assert [line["event"] for line in lines] == ["broker_away", "broker_back"] * 2
