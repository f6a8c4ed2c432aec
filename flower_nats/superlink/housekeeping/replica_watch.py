"""Notes replicas that have died, or are cut off: they have said no farewell and are not heard."""

import time
from collections.abc import Callable

from flower_nats.logs import get_logger
from flower_nats.store.replicas import Replicas

log = get_logger(__name__)

LOOK_EVERY = 5.0
"""Seconds between two looks."""

_LOST_AFTER = 20.0
"""Seconds of silence after which a replica is lost: each speaks every 5 s, and one that has lost its
NATS server is back with another after some seconds."""

_GAP = 3 * LOOK_EVERY
"""Seconds without a look after which we cannot know who was silent meanwhile."""


class ReplicaWatch:
    """Looks, pass by pass, at who is silent. Only what this superlink could hear counts as silence."""

    def __init__(self, replicas: Replicas, can_hear: Callable[[], bool]) -> None:
        """`can_hear` says whether replicas could be heard just now: NATS brings what they say."""
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
