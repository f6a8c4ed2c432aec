"""The limit of log bytes that are held for followers that do not read."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from flower_nats.broker.runlog import BATCH_BYTES
from flower_nats.model.errors import ApiError
from flower_nats_gateway.runlog.room import (
    ANSWERS,
    FOLLOWERS,
    PIECE,
    LogRoom,
    wanted_bytes,
)


def test_first_answers_are_long_while_there_is_room() -> None:
    room = LogRoom()
    with ExitStack() as untaken:
        sizes = [untaken.enter_context(room.take(BATCH_BYTES)) for _ in range(300)]
    assert sizes[0] == BATCH_BYTES
    assert sizes[-1] == PIECE
    assert sum(size for size in sizes if size > PIECE) <= ANSWERS
    with room.take(BATCH_BYTES) as size:
        assert size == BATCH_BYTES


def test_there_are_so_many_followers_and_no_more() -> None:
    room = LogRoom()
    with ExitStack() as following:
        for _ in range(FOLLOWERS):
            following.enter_context(room.follower())
        with pytest.raises(ApiError), room.follower():
            pass
    with room.follower():
        pass


@pytest.mark.parametrize(
    ("said", "bytes_"),
    [("", BATCH_BYTES), ("300000", 300_000), ("9" * 5000, BATCH_BYTES), ("-1", BATCH_BYTES)],
)
def test_who_asks_may_say_that_there_is_little_room(said: str, bytes_: int) -> None:
    assert wanted_bytes(said) == bytes_
