"""The mailbox against a real broker: every instruction ends in exactly one reply."""

import asyncio

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from harness.children import PATIENCE
from harness.messages import Parcel, instruction, reply

RUN, NODE = 2**63 + 5, 2**64 - 7


@pytest.fixture
def mailbox(connection: Connection) -> Mailbox:
    return Mailbox(connection)


async def deliver(mailbox: Mailbox, one: Parcel) -> str:
    session = await mailbox.open_session(RUN, [one.outgoing])
    await mailbox.release(session, one.outgoing)
    await mailbox.mark_released(RUN, session)
    return session


async def next_id(mailbox: Mailbox) -> str | None:
    found = await mailbox.next_instruction(NODE)
    return found.key.message_id if found else None


async def test_an_instruction_is_handed_out_until_its_node_confirms_it(mailbox: Mailbox) -> None:
    first, second = instruction(RUN, NODE), instruction(RUN, NODE)
    await deliver(mailbox, first)
    await deliver(mailbox, second)

    assert await next_id(mailbox) == first.message_id
    assert await next_id(mailbox) == first.message_id

    await mailbox.take(RUN, NODE, first.message_id, 1.0)
    assert await next_id(mailbox) == second.message_id
    await mailbox.take(RUN, NODE, second.message_id, 1.0)
    assert await next_id(mailbox) is None


async def test_a_node_that_starts_anew_gets_what_it_had_not_answered_in_order(
    mailbox: Mailbox,
) -> None:
    parcels = [instruction(RUN, NODE) for _ in range(3)]
    for one in parcels:
        await deliver(mailbox, one)
        await mailbox.take(RUN, NODE, one.message_id, 1.0)
    answer = reply(parcels[1])
    session = await mailbox.open_session(RUN, [answer.outgoing])
    assert await mailbox.accept_reply(RUN, session, answer.outgoing)

    assert await mailbox.reoffer(NODE, 2.0) == 2

    assert await next_id(mailbox) == parcels[0].message_id
    await mailbox.take(RUN, NODE, parcels[0].message_id, 3.0)
    assert await next_id(mailbox) == parcels[2].message_id


async def test_what_a_node_said_last_counts_whenever_it_is_heard(mailbox: Mailbox) -> None:
    question = instruction(RUN, NODE)
    await deliver(mailbox, question)
    await mailbox.reoffer(NODE, 2.0)

    # This call is from a former process of the node.
    await mailbox.take(RUN, NODE, question.message_id, 1.0)
    assert await next_id(mailbox) == question.message_id

    await mailbox.take(RUN, NODE, question.message_id, 3.0)
    # This call repeats the first call of the present process.
    await mailbox.reoffer(NODE, 2.0)
    assert await next_id(mailbox) is None


async def test_only_the_first_reply_counts_even_after_it_was_confirmed(mailbox: Mailbox) -> None:
    question = instruction(RUN, NODE)
    await deliver(mailbox, question)
    first, second = reply(question), reply(question)
    one = await mailbox.open_session(RUN, [first.outgoing])
    two = await mailbox.open_session(RUN, [second.outgoing])

    results = await asyncio.gather(
        mailbox.accept_reply(RUN, one, first.outgoing),
        mailbox.accept_reply(RUN, two, second.outgoing),
    )
    assert sorted(results) == [False, True]
    assert await mailbox.find_instruction(RUN, NODE, question.message_id) is None

    winner = first if results[0] else second
    await mailbox.confirm_reply(RUN, winner.message_id)
    third = await mailbox.open_session(RUN, [second.outgoing])
    assert not await mailbox.accept_reply(RUN, third, second.outgoing)
    flight = (await mailbox.in_flight(RUN))[RUN]
    assert not flight.replies
    assert not flight.instructions


async def test_accepting_the_same_reply_again_is_accepted_again(mailbox: Mailbox) -> None:
    question = instruction(RUN, NODE)
    await deliver(mailbox, question)
    answer = reply(question)
    session = await mailbox.open_session(RUN, [answer.outgoing])

    assert await mailbox.accept_reply(RUN, session, answer.outgoing)
    assert await mailbox.accept_reply(RUN, session, answer.outgoing)


async def test_an_answered_instruction_cannot_come_back(mailbox: Mailbox) -> None:
    question = instruction(RUN, NODE)
    session = await deliver(mailbox, question)
    answer = reply(question)
    reply_session = await mailbox.open_session(RUN, [answer.outgoing])
    await mailbox.accept_reply(RUN, reply_session, answer.outgoing)

    # A stopped gateway goes on: it releases and confirms late.
    await mailbox.release(session, question.outgoing)
    await mailbox.take(RUN, NODE, question.message_id, 1.0)

    assert await next_id(mailbox) is None


async def test_an_expired_instruction_is_gone(mailbox: Mailbox) -> None:
    question = instruction(RUN, NODE, ttl=1.0)
    await deliver(mailbox, question)
    assert await next_id(mailbox) == question.message_id

    async with asyncio.timeout(PATIENCE):
        while await mailbox.find_instruction(RUN, NODE, question.message_id):
            await asyncio.sleep(0.05)
    assert await next_id(mailbox) is None


async def test_a_session_of_many_messages_comes_back_whole(mailbox: Mailbox) -> None:
    parcels = [instruction(RUN, NODE) for _ in range(2500)]
    session_id = await mailbox.open_session(RUN, [one.outgoing for one in parcels])

    session = await mailbox.load_session(RUN, session_id)

    assert session is not None
    assert session.outgoing == tuple(one.outgoing for one in parcels)
    assert await mailbox.load_session(RUN, "0" * 32) is None


async def test_a_session_whose_first_part_had_to_be_stored_again_comes_back_in_order(
    connection: Connection, mailbox: Mailbox
) -> None:
    parcels = [instruction(RUN, NODE) for _ in range(2500)]
    session_id = await mailbox.open_session(RUN, [one.outgoing for one in parcels])
    first = subjects.push(RUN, session_id, 0)
    part = await connection.last(subjects.MESSAGES_STREAM, first)
    assert part is not None

    await connection.purge(subjects.MESSAGES_STREAM, first)
    await connection.store(first, part.data, headers={"Fn-Parts": part.headers["Fn-Parts"]})

    session = await mailbox.load_session(RUN, session_id)
    assert session is not None
    assert session.outgoing == tuple(one.outgoing for one in parcels)


async def test_the_end_of_a_run_leaves_nothing_in_flight(mailbox: Mailbox) -> None:
    question = instruction(RUN, NODE)
    await deliver(mailbox, question)

    await mailbox.end_run(RUN)

    assert await mailbox.in_flight() == {}
