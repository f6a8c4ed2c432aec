"""Which nodes are online after an outage, before their next heartbeat.

When the runtime is back, a node's next heartbeat may be half a minute away, but the node asks for
work at once. The gateway reports this to a superlink once, and again after each outage.
`heard_since` is the moment, from superlinks, since when nodes could be heard again.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_MOST = 200_000
"""Nodes that are remembered as reported; beyond that, all are reported again."""


class Presence:
    """The nodes that this gateway sees at work."""

    def __init__(self) -> None:
        self._asking: Counter[int] = Counter()
        self._seen: set[int] = set()
        self._told: set[int] = set()
        self._heard_since: str | None = None

    @contextmanager
    def asking(self, node_id: int) -> Iterator[None]:
        """Note that a node asks for work, for the time of a `with` block."""
        self._asking[node_id] += 1
        if node_id not in self._told:
            self._seen.add(node_id)
        try:
            yield
        finally:
            self._asking[node_id] -= 1
            if not self._asking[node_id]:
                del self._asking[node_id]

    def heard_since(self, moment: str | None) -> None:
        """Note since when nodes can be heard; if that has changed, all nodes are reported again."""
        if moment != self._heard_since or len(self._told) > _MOST:
            self._heard_since = moment
            self._told.clear()
            self._seen.update(self._asking)

    def take(self) -> list[int]:
        """Return the nodes to report; `give_back` takes them back if the report fails."""
        seen, self._seen = self._seen, set()
        self._told |= seen
        return sorted(seen)

    def give_back(self, node_ids: list[int]) -> None:
        """Take back nodes that could not be reported."""
        self._seen.update(node_ids)
