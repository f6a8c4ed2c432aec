"""The calls that a gateway takes when it has as many as it can serve."""

from __future__ import annotations

import pytest

from flower_nats.model.errors import ApiError
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.calls import admission
from flower_nats_gateway.calls.admission import Admission
from flower_nats_gateway.calls.in_hand import CallsInHand

HEARTBEAT = BY_NAME[("Fleet", "SendNodeHeartbeat")]
STRANGER, OTHER, HERE = "192.0.2.1", "192.0.2.2", ""


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WORKING", 8)
    monkeypatch.setattr(admission, "FEW", 2)


def begin(in_hand: CallsInHand, host: str) -> bool:
    """Begin a call; return whether it is taken."""
    in_hand.begin(f"{host}:1", host)
    try:
        Admission(in_hand, lambda: 0, per_host=8).check(HEARTBEAT, host)
    except ApiError:
        in_hand.end(f"{host}:1", host)
        return False
    return True


def test_one_address_that_takes_all_places_keeps_nobody_else_out() -> None:
    in_hand = CallsInHand()
    assert [begin(in_hand, STRANGER) for _ in range(10)] == [True] * 8 + [False] * 2

    assert [begin(in_hand, OTHER) for _ in range(3)] == [True, True, False]
    assert begin(in_hand, HERE)


def test_there_is_an_end_to_what_many_addresses_get() -> None:
    in_hand = CallsInHand()
    hosts = [f"192.0.2.{number}" for number in range(30)]

    assert sum(begin(in_hand, host) for host in hosts) == 16
