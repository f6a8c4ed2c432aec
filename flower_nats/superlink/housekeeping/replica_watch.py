"""Notes replicas that have died or are cut off: they are silent without a farewell."""

import time
from collections.abc import Callable

from flower_nats.logs import get_logger
from flower_nats.store.replicas import Replicas

log = get_logger(__name__)

LOOK_EVERY = 5.0
"""Seconds between two looks."""

_LOST_AFTER = 20.0
"""Seconds of silence after which a replica is lost. Each gives a sign of life every 5 s, and one
that lost its NATS server finds another after some seconds."""

_GAP = 3 * LOOK_EVERY
"""Seconds between two looks after which we cannot know which replicas were silent."""


class ReplicaWatch:
    """Looks for silent replicas. Silence counts only while this superlink could have heard them."""

    def __init__(self, replicas: Replicas, can_hear: Callable[[], bool]) -> None:
        """`can_hear` says whether replicas could be heard at present, which needs NATS."""
        self._replicas = replicas
        self._can_hear = can_hear
        self._hears_since = time.monotonic()
        self._looked_at = time.monotonic()

    async def look(self) -> None:
        """Make one pass. Raises `Unavailable` if the database is out of reach."""
        now = time.monotonic()
        if not self._can_hear() or now - self._looked_at > _GAP:
            self._hears_since = now
        self._looked_at = now
        if now - self._hears_since < _LOST_AFTER:
            return
        for kind, replica_id in await self._replicas.note_lost(_LOST_AFTER):
            log.warning("replica_lost", kind=kind, replica=replica_id)
