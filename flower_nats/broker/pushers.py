"""Push sessions whose objects arrive: gateways see it, and superlinks must know before they drop
one.

On a slow line a large object may take longer than a session lasts to which nothing is pushed. The broker
knows of no object before it is whole, so gateways tell every `TELL_EVERY` seconds whose pushes they have
in hand. That is a hint: to drop a session all the same, a superlink would have to miss all of them.
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
"""A node, whichever runs its objects are of; or the ServerApp of a run."""


def node_pusher(node_id: int) -> Pusher:
    """Return the pusher that a node is."""
    return f"node.{node_id}"


def run_pusher(run_id: int) -> Pusher:
    """Return the pusher that the ServerApp of a run is."""
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
        """Tell superlinks who has a push in hand at this gateway, until cancelled."""
        while True:
            await asyncio.sleep(TELL_EVERY)
            if self._by:
                await connection.hint(subjects.event_pushes(gateway), ",".join(self._by).encode())


class Pushers:
    """Those who have pushed lately, as a superlink hears it from gateways."""

    def __init__(self) -> None:
        self._heard: dict[Pusher, float] = {}

    async def listen(self, connection: Connection) -> None:
        """Hear what gateways say from now on."""
        await connection.subscribe(f"{subjects.EVENT_PUSHES}>", self._on_message)

    async def _on_message(self, message: Msg) -> None:
        self.note(message.data.decode("ascii", "replace").split(","))

    def note(self, pushers: Iterable[Pusher]) -> None:
        """Note that they have a push under way."""
        self._heard.update(dict.fromkeys(pushers, time.monotonic()))

    def pushed_within(self, pusher: Pusher, seconds: float) -> bool:
        """Return whether somebody had a push under way in the last so many seconds."""
        heard = self._heard.get(pusher)
        return heard is not None and time.monotonic() - heard < seconds

    def forget(self, seconds: float) -> None:
        """Forget those who have had none for so many seconds."""
        since = time.monotonic() - seconds
        self._heard = {pusher: at for pusher, at in self._heard.items() if at > since}
