"""A live run's data in the broker does not grow with its rounds: superlinks clear up behind it."""

from __future__ import annotations

import time

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from harness import app
from tests.faults.trial import NODES, Trial

LONG = 25.0
"""Seconds for which the run goes on."""
LATELY = 15.0
"""Seconds for which the broker may hold the objects of a round. Housekeeping keeps objects for 5 s
and looks for old objects every 2 s; the rest is for a busy machine."""

BALLAST_BYTES = 8 * app.BALLAST
MORE = 1.1
"""Factor on the ballast, for the other data of a round and for the broker's own overhead."""
MESSAGES_A_ROUND = 2 * NODES + 2


async def held(connection: Connection, stream: str) -> tuple[int, int]:
    """Return the bytes and the messages that a stream holds."""
    state = (await connection.info(stream))["state"]
    return state["bytes"], state["messages"]


async def test_what_a_live_run_holds_does_not_grow_with_its_rounds(running: Trial) -> None:
    began = time.monotonic()
    async with running.cluster.connection() as connection:
        while time.monotonic() - began < LONG:
            await running.app.more_rounds(1)
            size, _ = await held(connection, subjects.OBJECTS_STREAM)
            _, messages = await held(connection, subjects.MESSAGES_STREAM)

            ended = [end for _, end in running.app.spans]
            # Plus the round that is under way, and perhaps the next round.
            rounds = sum(end > time.monotonic() - LATELY for end in ended) + 2
            # The ballast of each node is the same in every round, so the broker holds it once.
            assert size < (rounds + NODES) * BALLAST_BYTES * MORE, (size, rounds, len(ended))
            assert messages < rounds * MESSAGES_A_ROUND, (messages, rounds, len(ended))
    assert len(ended) >= 5
    await running.end_unharmed()
