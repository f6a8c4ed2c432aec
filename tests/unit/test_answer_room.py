"""Large answers: the number that leave at once, and their order."""

from __future__ import annotations

import asyncio

import pytest

from flower_nats_gateway.calls import answer_room
from flower_nats_gateway.calls.answer_room import AnswerRoom


async def test_answers_leave_in_turn_and_one_that_is_alone_may_be_larger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = AnswerRoom(100)
    monkeypatch.setattr(answer_room, "PATIENCE", 0.05)
    leave = await room.enter("", 60)
    with pytest.raises(Exception, match="no room"):
        await room.enter("", 50)
    monkeypatch.setattr(answer_room, "PATIENCE", 10.0)
    gone, huge, small = [asyncio.create_task(room.enter("", size)) for size in (50, 1000, 10)]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    assert not huge.done() and not small.done()
    leave()
    (await huge)()
    (await small)()
    assert room.size == 0
    await room.enter("", 100)


async def test_an_address_has_half_of_the_room_and_others_do_not_wait_for_it() -> None:
    room = AnswerRoom(100)
    first = await room.enter("10.0.0.1", 40)
    second = asyncio.create_task(room.enter("10.0.0.1", 20))
    await asyncio.sleep(0)

    other = await room.enter("10.0.0.2", 50)

    assert not second.done()
    first()
    (await second)()
    other()
    # One answer may always leave, even if it is larger than a share.
    (await room.enter("10.0.0.1", 90))()
    assert room.size == 0
