"""Connecting to a broker that does not answer ends, and says why."""

from __future__ import annotations

import time

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.model.errors import Unavailable
from tests.harness.environment import free_port


async def test_connecting_gives_up_after_its_patience() -> None:
    started = time.monotonic()

    with pytest.raises(Unavailable, match="no NATS server answers: ConnectionRefusedError"):
        await Connection.connect([f"nats://127.0.0.1:{free_port()}"], "test", patience=0.5)

    assert time.monotonic() - started < 3.0


async def test_a_wrong_password_is_named(nats_url: str) -> None:
    address = nats_url.rpartition("@")[2]

    with pytest.raises(Unavailable, match="Authorization Violation"):
        await Connection.connect([f"nats://flower:guess@{address}"], "test", patience=0.5)
