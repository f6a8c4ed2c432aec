"""Housekeeping of messages in flight, against a real broker."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.pushers import Pushers, node_pusher, run_pusher
from flower_nats.broker.subjects import InstructionKey
from flower_nats.superlink.housekeeping import messages as message_housekeeping
from flower_nats.superlink.housekeeping.messages import MessageHousekeeping
from harness.messages import Parcel, inflate, instruction, reply

RUN, NODE = 77, 2**64 - 9


class World:
    """Messages in a broker, and the statuses of nodes and runs."""

    def __init__(self, connection: Connection) -> None:
        self.mailbox = Mailbox(connection)
        self.objects = Objects(connection)
        self.nodes = {NODE: "online"}
        self.runs = {RUN: "running"}
        self.heard = True
        self.pushers = Pushers()
        self.housekeeping = MessageHousekeeping(
            self.mailbox,
            self.objects,
            self.reachable,
            self.run_statuses,
            self.is_heard,
            self.pushers,
        )

    async def reachable(self, pairs: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(run, node) for run, node in pairs if self.nodes.get(node) == "online"}

    async def run_statuses(self, ids: Sequence[int]) -> Mapping[int, str]:
        return {one: self.runs[one] for one in ids if one in self.runs}

    async def is_heard(self) -> bool:
        return self.heard

    async def push(self, one: Parcel, leave_out: int = 0) -> str:
        session = await self.mailbox.open_session(RUN, [one.outgoing])
        for object_id, content in list(one.objects.items())[leave_out:]:
            await self.objects.put(RUN, object_id, content, session)
        return session

    async def sweep_twice(self) -> None:
        """Sweep twice: the second pass finishes the work of the first."""
        await self.housekeeping.sweep()
        await self.housekeeping.sweep()

    async def deliver(self, one: Parcel) -> None:
        session = await self.push(one)
        await self.mailbox.release(session, one.outgoing)
        await self.mailbox.mark_released(RUN, session)

    async def answer(self, one: Parcel) -> None:
        session = await self.push(one)
        assert await self.mailbox.accept_reply(RUN, session, one.outgoing)


@pytest.fixture
def world(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(message_housekeeping, "_YOUNG", timedelta(0))
    monkeypatch.setattr(message_housekeeping, "_KEPT", timedelta(0))
    return World(connection)


def model(value: float) -> RecordDict:
    return RecordDict({"model": ArrayRecord([np.full((600, 600), value)])})


async def test_a_lost_node_gets_one_error_reply_that_flwr_can_read(world: World) -> None:
    question = instruction(RUN, NODE)
    await world.deliver(question)
    await world.housekeeping.sweep()
    assert not (await world.mailbox.in_flight(RUN))[RUN].replies

    world.nodes[NODE] = "offline"
    await asyncio.gather(world.housekeeping.sweep(), world.housekeeping.sweep())

    flight = (await world.mailbox.in_flight(RUN))[RUN]
    assert not flight.instructions
    found = await world.mailbox.read_reply(flight.replies[question.message_id])
    assert found is not None
    content = await world.objects.get(RUN, found.metadata.message_id)
    assert content is not None
    message = inflate(found.metadata.message_id, {found.metadata.message_id: content})
    assert message.has_error()
    assert message.error.code == 5
    assert message.metadata.reply_to_message_id == question.message_id
    # The node comes back too late.
    await world.mailbox.take(RUN, NODE, question.message_id, 1.0)
    late = reply(question)
    assert not await world.mailbox.accept_reply(RUN, await world.push(late), late.outgoing)


async def test_a_session_whose_gateway_died_is_completed(world: World) -> None:
    question = instruction(RUN, NODE)
    await world.push(question)

    await world.housekeeping.sweep()

    found = await world.mailbox.next_instruction(NODE)
    assert found is not None
    assert found.key.message_id == question.message_id


async def test_a_session_with_missing_objects_is_left_alone_until_it_is_abandoned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = instruction(RUN, NODE, model(1.0))
    session = await world.push(question, leave_out=1)
    await world.housekeeping.sweep()
    assert await world.mailbox.load_session(RUN, session) is not None

    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", 0.0)
    await world.sweep_twice()

    assert await world.mailbox.load_session(RUN, session) is None
    assert await world.mailbox.next_instruction(NODE) is None


async def test_a_reply_that_stays_half_pushed_is_ended_by_one_error_reply(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = instruction(RUN, NODE)
    await world.deliver(question)
    await world.mailbox.take(RUN, NODE, question.message_id, 1.0)
    answer = reply(question, model(1.0))
    session = await world.push(answer, leave_out=1)
    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", 0.0)

    await asyncio.gather(world.housekeeping.sweep(), world.housekeeping.sweep())
    await world.sweep_twice()

    flight = (await world.mailbox.in_flight(RUN))[RUN]
    assert not flight.instructions
    found = await world.mailbox.read_reply(flight.replies[question.message_id])
    assert found is not None
    content = await world.objects.get(RUN, found.metadata.message_id)
    assert content is not None
    error = inflate(found.metadata.message_id, {found.metadata.message_id: content}).error
    assert error.code == 4
    assert "stopped sending it" in error.reason
    # The last object still arrives, at a gateway that still knows the session.
    assert await world.mailbox.load_session(RUN, session) is None
    assert not await world.mailbox.accept_reply(RUN, session, answer.outgoing)


async def test_a_reply_is_not_ended_that_is_whole_in_the_same_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = instruction(RUN, NODE)
    await world.deliver(question)
    answer = reply(question, model(1.0))
    session = await world.push(answer, leave_out=1)
    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", 0.0)
    end = world.mailbox.written

    async def just_before(key: InstructionKey) -> object:
        found = await end(key)
        assert await world.mailbox.accept_reply(RUN, session, answer.outgoing)
        return found

    monkeypatch.setattr(world.mailbox, "written", just_before)
    await world.sweep_twice()

    flight = (await world.mailbox.in_flight(RUN))[RUN]
    assert flight.replies[question.message_id].message_id == answer.message_id
    assert await world.mailbox.load_session(RUN, session) is not None


async def test_what_a_node_left_half_pushed_does_not_end_what_it_does_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = instruction(RUN, NODE)
    await world.deliver(question)
    await world.mailbox.take(RUN, NODE, question.message_id, 1.0)
    await world.push(reply(question, model(1.0)), leave_out=1)
    await world.mailbox.reoffer(NODE, 2.0)
    await world.mailbox.take(RUN, NODE, question.message_id, 3.0)
    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", 0.0)

    await world.sweep_twice()

    assert question.message_id in (await world.mailbox.in_flight(RUN))[RUN].instructions
    await world.answer(reply(question, model(2.0)))
    await world.sweep_twice()
    assert len((await world.mailbox.in_flight(RUN))[RUN].sessions) == 2


@pytest.mark.parametrize("is_reply", [False, True])
async def test_a_session_lasts_while_its_pusher_has_a_push_in_hand(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_reply: bool
) -> None:
    question = instruction(RUN, NODE)
    if is_reply:
        await world.deliver(question)
    pushed = reply(question, model(1.0)) if is_reply else instruction(RUN, NODE, model(1.0))
    session = await world.push(pushed, leave_out=1)
    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", 0.2)
    await asyncio.sleep(0.2)

    world.pushers.note([node_pusher(NODE) if is_reply else run_pusher(RUN)])
    await world.sweep_twice()
    assert await world.mailbox.load_session(RUN, session) is not None

    await asyncio.sleep(0.2)
    world.pushers.note([run_pusher(RUN + 1), node_pusher(NODE - 1)])
    await world.sweep_twice()
    assert await world.mailbox.load_session(RUN, session) is None


async def test_instructions_of_a_session_given_up_that_are_out_keep_their_objects(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cut_off = instruction(RUN, NODE, model(1.0)), instruction(RUN, NODE, model(2.0))
    session = await world.mailbox.open_session(RUN, [out.outgoing, cut_off.outgoing])
    for object_id, content in out.objects.items():
        await world.objects.put(RUN, object_id, content, session)
    await world.mailbox.release(session, out.outgoing)
    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", 0.0)

    await world.sweep_twice()

    assert await world.mailbox.next_instruction(NODE) is not None
    assert set(out.objects) <= await world.objects.ids(RUN)
    flight = (await world.mailbox.in_flight(RUN))[RUN]
    assert not flight.unfinished_sessions
    await world.answer(reply(out))
    await world.mailbox.end_instruction(RUN, out.message_id)


async def test_a_session_outlives_an_outage_in_which_nobody_could_push_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await world.push(instruction(RUN, NODE, model(1.0)), leave_out=1)
    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", 0.2)
    world.heard = False
    await asyncio.sleep(0.2)
    await world.housekeeping.sweep()
    world.heard = True
    await world.housekeeping.sweep()
    assert await world.mailbox.load_session(RUN, session) is not None

    # Time without any pass does not count either.
    monkeypatch.setattr(message_housekeeping, "_OUTAGE", 0.1)
    await asyncio.sleep(0.2)
    await world.housekeeping.sweep()
    assert await world.mailbox.load_session(RUN, session) is not None

    monkeypatch.setattr(message_housekeeping, "_OUTAGE", 10.0)
    await asyncio.sleep(0.2)
    await world.sweep_twice()
    assert await world.mailbox.load_session(RUN, session) is None


@pytest.mark.parametrize("ttl", [float("inf"), 1e300, 1e10, 9_223_372_036.0])
async def test_an_instruction_may_live_for_ever(world: World, ttl: float) -> None:
    question = instruction(RUN, NODE, ttl=ttl)
    await world.push(question)

    await world.housekeeping.sweep()

    found = await world.mailbox.next_instruction(NODE)
    assert found is not None
    await world.mailbox.take(RUN, NODE, found.key.message_id, 1.0)
    await world.mailbox.reoffer(NODE, 2.0)
    again = await world.mailbox.next_instruction(NODE)
    assert again is not None and again.key == found.key


async def test_a_run_that_cannot_be_mended_does_not_keep_the_others_from_it(
    world: World, connection: Connection
) -> None:
    poisoned = RUN - 1
    world.runs[poisoned] = "running"
    question = instruction(RUN, NODE)
    for run_id in (poisoned, RUN):
        session = await world.mailbox.open_session(run_id, [question.outgoing])
        for object_id, content in question.objects.items():
            await world.objects.put(run_id, object_id, content, session)
    record = await connection.next(subjects.MESSAGES_STREAM, subjects.run(poisoned))
    assert record is not None
    kept = {key: value for key, value in record.headers.items() if key.startswith("Fn-")}
    await connection.store(record.subject, b"\xc1", headers=kept)
    await connection.purge(subjects.MESSAGES_STREAM, record.subject, record.sequence + 1)

    await world.housekeeping.sweep()

    found = await world.mailbox.next_instruction(NODE)
    assert found is not None and found.key.run_id == RUN


async def test_objects_leave_when_their_messages_are_done_and_not_before(world: World) -> None:
    question = instruction(RUN, NODE, model(1.0))
    await world.deliver(question)
    await world.housekeeping.sweep()
    assert await world.objects.ids(RUN) == set(question.objects)

    answer = reply(question, model(2.0))
    await world.answer(answer)
    await world.housekeeping.sweep()
    assert set(answer.objects) <= await world.objects.ids(RUN)

    await world.mailbox.confirm_reply(RUN, answer.message_id)
    await world.housekeeping.sweep()
    await world.housekeeping.sweep()
    assert await world.objects.ids(RUN) == set()
    assert await world.mailbox.in_flight() == {}


async def test_a_straggler_keeps_its_own_objects_and_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_housekeeping, "_STRAGGLER", timedelta(0))
    slow = instruction(RUN, NODE, model(1.0))
    await world.deliver(slow)
    for value in range(3):
        quick = instruction(RUN, NODE, model(10.0 + value))
        await world.deliver(quick)
        answer = reply(quick, model(20.0 + value))
        await world.answer(answer)
        await world.mailbox.confirm_reply(RUN, answer.message_id)

    await world.housekeeping.sweep()
    await world.housekeeping.sweep()

    assert await world.objects.ids(RUN) == set(slow.objects)


async def test_what_a_finished_run_left_is_dropped(world: World) -> None:
    await world.deliver(instruction(RUN, NODE, model(1.0)))
    world.runs[RUN] = "finished"

    await world.housekeeping.sweep()

    assert await world.mailbox.in_flight() == {}
    assert await world.objects.runs() == set()


async def test_an_object_comes_back_as_it_was(world: World) -> None:
    for size in (0, 1, 1024 * 1024, 1024 * 1024 + 1, 5 * 1024 * 1024):
        content = bytes(np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8))
        await world.objects.put(RUN, f"{size:064x}", content)
        assert await world.objects.get(RUN, f"{size:064x}") == content
    assert await world.objects.get(RUN, "f" * 64) is None
