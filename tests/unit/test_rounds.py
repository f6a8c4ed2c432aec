"""Rounds are derived from exchanges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flower_nats.store.exchanges import NodeHistory, Send
from flower_nats.superlink.console.rounds import expected_end, rounds_of, rows_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def send(
    session: int, at: float, *, answered: float | None = None, group: str = "", kind: str = "train"
) -> Send:
    """Return a send to one node, with its time and the answer's time in seconds."""
    end = None if answered is None else BEGAN + timedelta(seconds=answered)
    return Send(
        session,
        kind,
        group,
        BEGAN + timedelta(seconds=at),
        end,
        end,
        1,
        int(end is not None),
        0,
        5,
        7,
    )


def test_a_group_is_a_round_however_it_is_sent() -> None:
    sends = [
        send(1, 0, answered=9, group="1"),
        send(2, 30, answered=40, group="1"),
        send(3, 50, group="2"),
    ]

    [rounds] = rounds_of(sends).values()

    assert [(one.name, one.sent, one.answered) for one in rounds] == [("1", 2, 2), ("2", 1, 0)]


def test_without_groups_each_send_of_a_type_is_a_round() -> None:
    sends = [
        send(1, 0, answered=1),
        send(2, 2, answered=3, kind="evaluate"),
        send(3, 4, answered=5),
    ]

    found = rounds_of(sends)

    assert [one.name for one in found["train"]] == ["1", "2"]
    assert [one.name for one in found["evaluate"]] == ["1"]


def test_messages_that_are_sent_one_by_one_are_one_round() -> None:
    sends = [send(1, 0, answered=4), send(2, 0.5, answered=3), send(3, 1), send(4, 9)]

    [rounds] = rounds_of(sends).values()

    assert [one.sent for one in rounds] == [3, 1]


def test_an_answer_that_nobody_noted_is_not_waited_for() -> None:
    [rounds] = rounds_of([send(1, 0, answered=1), send(2, 10, answered=11), send(3, 20)]).values()
    gap = NodeHistory(5, [1, 2, 3], ["", "answered", ""], [0, 0, 0], [900, 50, 80])
    late = NodeHistory(6, [3], [""], [-1], [90])

    during = {
        row.node_id: "".join(row.states) for row in rows_of(rounds, [gap, late], is_over=False)
    }
    after = {row.node_id: "".join(row.states) for row in rows_of(rounds, [gap, late], is_over=True)}

    assert during == {5: "nat", 6: "--w"}
    assert after == {5: "nan", 6: "--n"}


def test_the_end_is_expected_if_the_number_of_rounds_is_known() -> None:
    [rounds] = rounds_of([send(1, 0, answered=1), send(2, 10, answered=11), send(3, 20)]).values()

    assert expected_end(rounds, 5, BEGAN) == BEGAN + timedelta(seconds=50)
    assert expected_end(rounds, None, BEGAN) is None
    assert expected_end(rounds[:1], 5, BEGAN) is None
    # The run is late: its expected end is never in the past.
    now = BEGAN + timedelta(seconds=500)
    assert expected_end(rounds, 5, now) == now
