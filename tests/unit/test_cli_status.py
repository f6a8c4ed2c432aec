"""The text of `flower-nats status`."""

from __future__ import annotations

from typing import Any

import pytest

from flower_nats_cli.status_text import durability_lines, room_lines

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
            "2 standbys, UNKNOWN WHETHER SYNCHRONOUS: to see it, the database user of superlinks needs "
            "pg_read_all_stats",
        ),
    ],
)
def test_standbys_are_told_with_how_many_are_synchronous(
    standbys: int, synchronous: int | None, said: str
) -> None:
    database: dict[str, Any] = {"standbys": standbys, "synchronous_standbys": synchronous}

    *_, line = durability_lines({"broker": BROKER, "database": DATABASE | database})

    assert line.endswith(f"), {said}")


def test_room_is_told_with_how_soon_it_ends() -> None:
    rooms: dict[str, dict[str, Any]] = {
        "disk": {"free": 5_400_000_000, "size": 100_000_000_000, "hours_left": 3.2, "is_low": True},
        "broker nats-1": {"free": 900, "size": 1000, "hours_left": None, "is_low": False},
    }

    first, second = room_lines(rooms)

    assert first.endswith(
        "disk: LOW: 5.4 GB of 100.0 GB free, full in about 3 hours at the rate of the last hour"
    )
    assert second.endswith("broker nats-1: 900 B of 1 kB free")
