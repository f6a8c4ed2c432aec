"""`flower-nats status` in words."""

from __future__ import annotations

from typing import Any

import pytest

from flower_nats_cli.status import durability_lines

BROKER = {"replicas": 1, "sync": "always", "servers": {"nats": "always"}}
DATABASE = {"synced": True, "fsync": True, "synchronous_commit": "on"}


@pytest.mark.parametrize(
    ("standbys", "synchronous", "said"),
    [
        (0, 0, "0 standbys"),
        (1, 0, "1 standby, 0 of them synchronous"),
        (1, 1, "1 standby, 1 of them synchronous"),
        (3, 2, "3 standbys, 2 of them synchronous"),
        (
            2,
            None,
            "2 standbys, SYNCHRONOUS OR NOT: our database user needs pg_read_all_stats to see",
        ),
    ],
)
def test_standbys_are_told_with_how_many_are_synchronous(
    standbys: int, synchronous: int | None, said: str
) -> None:
    database: dict[str, Any] = {"standbys": standbys, "synchronous_standbys": synchronous}

    *_, line = durability_lines({"broker": BROKER, "database": DATABASE | database})

    assert line.endswith(f"), {said}")
