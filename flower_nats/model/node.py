"""SuperNodes."""

from dataclasses import dataclass
from datetime import datetime

from flower_nats.model.states import NodeStatus

LONGEST_NAME = 200
"""Characters of the name that an owner gives a node."""


@dataclass(frozen=True)
class Node:
    """A SuperNode as the database knows it."""

    node_id: int
    public_key: bytes
    """PEM; it identifies the node."""
    owner_id: str
    """Account that registered it."""
    owner_name: str
    status: NodeStatus
    heartbeat_interval: float
    """Promised seconds between heartbeats."""
    registered_at: datetime
    last_activated_at: datetime | None
    last_deactivated_at: datetime | None
    unregistered_at: datetime | None
    online_until: datetime | None
    """When it counts as offline unless it is heard again."""
    name: str | None
    """The name that its owner gave it, if any."""
    location: str | None
    """`latitude,longitude`, if its owner set a location."""
    clock_ahead: float | None
    """Seconds by which its clock is ahead of a gateway's, minus a call's travel time; None if
    unknown."""
    key_since: datetime
    """Since when it has its key."""

    def log_context(self) -> dict[str, object]:
        """Fields that name this node in a log line."""
        return {"node_id": self.node_id, "node_status": str(self.status)}
