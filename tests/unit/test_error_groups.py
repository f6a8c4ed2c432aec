"""Errors with the same text are one group, with any numbers, ids and paths in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flower_nats.store.exchanges import ErrorSum
from flower_nats.superlink.console.error_groups import grouped, what_it_says

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CUDA out of memory. Tried 2.00 GiB", "CUDA out of memory. Tried 1024 GiB"),
        ("no file '/data/a/x.csv'", "no file '/mnt/other/deep/y.csv'"),
        ("no file C:\\data\\a.csv", "no file D:\\other\\b.csv"),
        ("object at 0x7f3a1c", "object at 0x55d0ff"),
        ("sha 9f86d081884c7d65 is missing", "sha 60303ae22b998861 is missing"),
        (
            "id 123e4567-e89b-12d3-a456-426614174000",
            "id 00000000-e89b-12d3-a456-426614174999",
        ),
        ("at 10:31:02,123 lost", "at 9:00:59 lost"),
        ("\x1b[91mERROR\x1b[0m  bad\nthing", "ERROR bad thing"),
        ("中文错误 12", "中文错误 9"),
    ],
)
def test_what_differs_from_time_to_time_is_no_difference(one: str, other: str) -> None:
    assert what_it_says(one) == what_it_says(other)


def test_different_errors_stay_different() -> None:
    texts = ["", "deadbeefs are words", "KeyError: 'a'", "KeyError: 'b'", "abcdefab is no number"]
    assert len({what_it_says(text) for text in texts}) == len(texts)


def test_a_group_has_count_times_nodes_and_runs() -> None:
    def error(text: str, count: int, at: int, nodes: list[int], runs: list[int]) -> ErrorSum:
        moment = NOW + timedelta(seconds=at)
        return ErrorSum(text, "failed", count, moment, moment, nodes, runs)

    found = grouped(
        [
            error("at 7", 2, 5, [1], [10]),
            error("at 8", 3, 9, [1, 2], [11]),
            error("else", 1, 7, [], [10]),
        ]
    )

    assert [says for says, _ in found] == ["at #", "else"]
    one = found[0][1]
    assert (one.count, one.example) == (5, "at 8")
    assert (one.first_at, one.last_at) == (NOW + timedelta(seconds=5), NOW + timedelta(seconds=9))
    assert (list(one.nodes), list(one.runs)) == ([1, 2], [10, 11])
