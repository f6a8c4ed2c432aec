"""A fault that lasts does not fill the log."""

from __future__ import annotations

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


def test_an_outage_is_a_line_when_it_begins_one_a_minute_and_one_when_it_is_over(
    clock: Clock,
) -> None:
    with capture_logs() as lines:
        database = Outage(get_logger("test"), "database")
        database.worked()
        for _ in range(600):
            database.failed("refused")
            clock.now += 0.25
        database.worked()
        database.worked()

    told = [(line["event"], line["attempts"], line["seconds"]) for line in lines]
    assert told == [
        ("database_away", 1, 0),
        ("database_away", 241, 60),
        ("database_away", 481, 120),
        ("database_back", 600, 150),
    ]


def test_the_next_outage_is_told_anew(clock: Clock) -> None:
    with capture_logs() as lines:
        broker = Outage(get_logger("test"), "broker")
        for _ in range(2):
            broker.failed("refused")
            broker.worked()

    assert [line["event"] for line in lines] == ["broker_away", "broker_back"] * 2
