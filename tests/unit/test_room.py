"""The room that is left, and the time for which it will last."""

from __future__ import annotations

import pytest

from flower_nats.room import RoomTrend

GB = 1024**3


def test_what_fills_steadily_is_full_when_it_says() -> None:
    trend = RoomTrend()
    trend.note(90 * GB, 100 * GB, now=0)

    room = trend.note(80 * GB, 100 * GB, now=1800)

    assert room.hours_left == pytest.approx(4)
    assert room.is_low


@pytest.mark.parametrize(
    ("later", "free"),
    [(1800, 90 * GB), (1800, 95 * GB), (60, 80 * GB)],
    ids=["same", "more", "soon"],
)
def test_nothing_is_guessed_from_what_does_not_fill_or_was_not_seen_for_long(
    later: float, free: int
) -> None:
    trend = RoomTrend()
    trend.note(90 * GB, 100 * GB, now=0)

    room = trend.note(free, 100 * GB, now=later)

    assert room.hours_left is None
    assert not room.is_low


def test_what_was_filled_long_ago_says_nothing_of_tomorrow() -> None:
    trend = RoomTrend()
    trend.note(90 * GB, 100 * GB, now=0)
    trend.note(50 * GB, 100 * GB, now=100)

    assert trend.note(50 * GB, 100 * GB, now=4000).hours_left is None


def test_little_is_low_however_slowly_it_fills() -> None:
    assert RoomTrend().note(9 * GB, 100 * GB).is_low
    assert not RoomTrend().note(11 * GB, 100 * GB).is_low
