"""A push session at several gateways, which hear of each other in any order."""

from __future__ import annotations

from flwr.app import ConfigRecord, RecordDict

from flower_nats_gateway.delivery.push_session import PushSession
from harness.messages import Parcel, instruction

RUN = 7


def parcels(count: int) -> list[Parcel]:
    return [
        instruction(RUN, node, RecordDict({"own": ConfigRecord({"node": node})}))
        for node in range(2, count + 2)
    ]


def view(*messages: Parcel) -> PushSession:
    return PushSession(RUN, "session", [one.outgoing for one in messages])


def test_a_message_is_due_with_its_last_object_and_once() -> None:
    (one,) = parcels(1)
    arrival = view(one)
    *first, last = arrival.object_ids

    for object_id in first:
        arrival.note(object_id)
        assert arrival.take_due() == []
    arrival.note(last)

    assert arrival.take_due() == [0]
    assert arrival.take_due() == []


def test_what_another_gateway_claims_is_not_due_here() -> None:
    one, two = parcels(2)
    arrival = view(one, two)

    arrival.note_claims([0])
    for object_id in arrival.object_ids:
        arrival.note(object_id)

    assert arrival.take_due() == [1]


def test_two_last_objects_at_two_gateways_make_it_due_at_both() -> None:
    (one,) = parcels(1)
    here, there = view(one), view(one)
    *first, second_last, last = here.object_ids
    for object_id in first:
        here.note(object_id)
        there.note(object_id)

    here.note(last)
    there.note(second_last)
    assert here.take_due() == there.take_due() == []
    here.note(second_last)
    there.note(last)

    assert here.take_due() == there.take_due() == [0]


def test_an_object_that_comes_again_makes_claimed_messages_due() -> None:
    (one,) = parcels(1)
    arrival = view(one)
    last = arrival.object_ids[-1]
    arrival.note_claims([0])
    for object_id in arrival.object_ids:
        arrival.note(object_id)
    assert arrival.take_due() == []

    arrival.note_again(last)

    assert arrival.take_due() == [0]


def test_what_is_out_is_not_due_when_an_object_comes_again() -> None:
    (one,) = parcels(1)
    arrival = view(one)
    last = arrival.object_ids[-1]
    for object_id in arrival.object_ids:
        arrival.note(object_id)
    arrival.note_out(arrival.take_due())

    arrival.note_again(last)

    assert arrival.take_due() == []


def test_it_is_done_when_all_are_out_here_or_elsewhere() -> None:
    arrival = view(*parcels(3))

    assert not arrival.note_out([0, 1])
    assert arrival.note_out([2])
    assert not arrival.note_out([2]), "it was done before"
