"""Pushes in progress: superlinks must know of them before they drop a push session.

On a slow line, a large object may take longer than a session lasts without an object. The broker
knows an object only when it is complete. So gateways tell every `TELL_EVERY` seconds whose pushes
they have in hand. That is a hint: a superlink would drop such a session only if it missed all of
them.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.wire import common_pb2 as common

TELL_EVERY = 15.0
"""Seconds between two hints."""

Pusher = str
"""A node, for objects of any run; or the ServerApp of a run."""


def node_pusher(node_id: int) -> Pusher:
    """Return a node as a pusher."""
    return f"node.{node_id}"


def run_pusher(run_id: int) -> Pusher:
    """Return the ServerApp of a run as a pusher."""
    return f"run.{run_id}"


def pusher_of(metadata: common.Metadata) -> Pusher:
    """Return who pushes the objects of a message."""
    if metadata.src_node_id == SUPERLINK_NODE_ID:
        return run_pusher(metadata.run_id)
    return node_pusher(metadata.src_node_id)


class Pushes:
    """The pushes that a gateway has in hand."""

    def __init__(self) -> None:
        self._by: Counter[Pusher] = Counter()

    @contextmanager
    def in_hand(self, pusher: Pusher) -> Iterator[None]:
        """Count a push, from the head of its call to its end."""
        self._by[pusher] += 1
        try:
            yield
        finally:
            self._by[pusher] -= 1
            if not self._by[pusher]:
                del self._by[pusher]

    async def tell_forever(self, connection: Connection, gateway: str) -> None:
        """Tell superlinks whose pushes this gateway has in hand, until cancelled."""
        while True:
            await asyncio.sleep(TELL_EVERY)
            if self._by:
                await connection.hint(subjects.event_pushes(gateway), ",".join(self._by).encode())


class Pushers:
    """The recent pushers, as a superlink hears of them from gateways."""

    def __init__(self) -> None:
        self._heard: dict[Pusher, float] = {}

    async def listen(self, connection: Connection) -> None:
        """Hear the hints of gateways from now on."""
        await connection.subscribe(f"{subjects.EVENT_PUSHES}>", self._on_message)

    async def _on_message(self, message: Msg) -> None:
        self.note(message.data.decode("ascii", "replace").split(","))

    def note(self, pushers: Iterable[Pusher]) -> None:
        """Note that these pushers have a push in progress."""
        self._heard.update(dict.fromkeys(pushers, time.monotonic()))

    def pushed_within(self, pusher: Pusher, seconds: float) -> bool:
        """Return whether a pusher had a push in progress in the last `seconds`."""
        heard = self._heard.get(pusher)
        return heard is not None and time.monotonic() - heard < seconds

    def forget(self, seconds: float) -> None:
        """Forget pushers that had no push for `seconds`."""
        since = time.monotonic() - seconds
        self._heard = {pusher: at for pusher, at in self._heard.items() if at > since}
