"""The chaos benchmark's figures are valid only if it judges faults right."""

from __future__ import annotations

import pytest

from benchmarks.chaos.__main__ import parse, plans
from benchmarks.chaos.kills import Fault
from benchmarks.chaos.recovery import Spread, longest_wait, recoveries
from harness.wire import Made


def fault(at: float, kind: str = "gateway") -> Fault:
    return Fault(kind, f"{kind}-1", at)


def call(began: float, ended: float) -> Made:
    return Made("PushObject", began, ended, tries=1, answered=True)


def test_a_call_in_hand_is_counted_from_the_kill() -> None:
    [one] = recoveries([fault(10.0)], [call(9.5, 12.0)])

    assert one.longest_wait == pytest.approx(2.0)


def test_a_call_that_comes_later_is_counted_from_its_begin() -> None:
    [one] = recoveries([fault(10.0)], [call(13.0, 17.5)])

    assert one.longest_wait == pytest.approx(4.5)


def test_a_call_that_was_held_up_before_a_kill_is_not_charged_to_it() -> None:
    first, second = recoveries([fault(10.0), fault(15.0)], [call(11.0, 17.0)])

    assert first.longest_wait == pytest.approx(6.0)
    assert second.slowest is None


def test_a_wait_for_two_elections_is_shared_between_their_kills_and_shown_whole() -> None:
    faults = [fault(10.0, "nats"), fault(13.0), fault(15.0, "nats")]
    calls = [call(11.0, 23.0)]

    first, other, second = recoveries(faults, calls)

    assert first.longest_wait == pytest.approx(4.0)
    assert other.slowest is None
    assert second.longest_wait == pytest.approx(8.0)
    assert longest_wait(faults, calls) == pytest.approx(12.0)


def test_a_call_that_a_kill_meets_at_its_begin_is_charged_to_that_kill() -> None:
    first, second = recoveries([fault(10.0), fault(15.0)], [call(14.5, 17.0)])

    assert first.slowest is None
    assert second.longest_wait == pytest.approx(2.0)


def test_what_ended_before_the_first_kill_is_nobodys() -> None:
    [one] = recoveries([fault(10.0)], [call(1.0, 9.0), call(9.8, 9.9)])

    assert (one.longest_wait, one.slowest) == (0.0, None)


def test_silence_ends_with_any_answer_and_with_the_next_kill() -> None:
    first, second = recoveries([fault(10.0), fault(13.0)], [call(10.5, 11.0), call(12.5, 12.9)])

    assert first.silence == pytest.approx(1.9)
    assert second.silence == pytest.approx(5.0)


def test_median_and_worst_of_nothing_are_nothing() -> None:
    assert str(Spread.of([])) == "0.00 / 0.00 s"
    assert str(Spread.of([3.0, 1.0, 2.0])) == "2.00 / 3.00 s"


def test_the_stock_superlink_dies_as_often_as_each_single_process() -> None:
    both = plans(parse(["--every", "4", "--replicas", "2"]))

    assert (both["flower-nats"].every, both["stock"].every) == (4.0, 24.0)
    assert plans(parse(["--target", "stock", "--stock-every", "5"]))["stock"].every == 5.0
