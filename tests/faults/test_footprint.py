"""What a live run holds in the broker does not grow with its rounds: superlinks clear up behind it."""

from __future__ import annotations

import time

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from harness import app
from tests.faults.trial import NODES, Trial

LONG = 25.0
"""Seconds for which the run goes on."""
LATELY = 15.0
"""Seconds for which what a round has sent may be held. Housekeeping keeps objects for 5 s and looks for
old ones every 2 s; the rest is for a busy machine."""

BALLAST_BYTES = 8 * app.BALLAST
MORE = 1.1
"""What a round sends beside its ballast, and the broker's own, at most."""
MESSAGES_A_ROUND = 2 * NODES + 2


async def held(connection: Connection, stream: str) -> tuple[int, int]:
    """How many bytes and messages a stream holds."""
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
            # And the round that is under way, and perhaps its successor.
            rounds = sum(end > time.monotonic() - LATELY for end in ended) + 2
            # All nodes' own ballast is the same in every round, and so held once.
            assert size < (rounds + NODES) * BALLAST_BYTES * MORE, (size, rounds, len(ended))
            assert messages < rounds * MESSAGES_A_ROUND, (messages, rounds, len(ended))
    assert len(ended) >= 5
    await running.end_unharmed()
