"""The choice of a superlink for a question, by the superlinks' signs of life."""

from __future__ import annotations

import pytest

from flower_nats.broker import members
from flower_nats.broker.members import Members


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(members, "time", clock)
    return clock


def hear(some: Members, *names: str) -> None:
    for name in names:
        some.note(name, leaves=False)


def test_nats_chooses_among_superlinks_that_are_all_awake(clock: Clock) -> None:
    some = Members()
    assert some.to_ask() is None
    hear(some, "one", "two")

    assert some.to_ask() is None


def test_one_that_is_silent_is_not_asked(clock: Clock) -> None:
    some = Members()
    hear(some, "stopped", "awake")
    clock.now += 2.0
    hear(some, "awake")

    assert {some.to_ask() for _ in range(20)} == {"awake"}
    assert {some.to_ask_again() for _ in range(20)} == {"awake"}


def test_one_that_has_just_said_nothing_is_not_asked_again(clock: Clock) -> None:
    some = Members()
    hear(some, "stopped")
    clock.now += 0.4
    hear(some, "awake")
    clock.now += 0.2

    assert {some.to_ask_again() for _ in range(20)} == {"awake"}


def test_who_is_awake_again_or_has_left_is_not_silent(clock: Clock) -> None:
    some = Members()
    hear(some, "stopped", "leaving", "awake")
    clock.now += 2.0
    hear(some, "stopped", "awake")
    some.note("leaving", leaves=True)

    assert some.to_ask() is None


def test_if_all_are_silent_anybody_is_asked(clock: Clock) -> None:
    some = Members()
    hear(some, "one", "two")
    clock.now += 2.0

    assert some.to_ask() is None
    assert some.to_ask_again() is None
