"""The history of an exchange: an instruction to a node, and the reply to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

ROOM_FOR_TEXT = 500
"""Characters of an error's reason, a message type or a group that are kept."""


class Outcome(StrEnum):
    """How an exchange ended."""

    ANSWERED = "answered"
    """The node has answered."""
    FAILED = "failed"
    """The node has answered with an error."""
    UNANSWERED = "unanswered"
    """The runtime has answered in the place of the node."""


@dataclass(slots=True)
class ExchangeNote:
    """What is newly known of one exchange. None and empty texts: nothing new."""

    run_id: int
    exchange_id: int
    """See `exchange_id_of`."""
    node_id: int | None = None
    session_id: int = 0
    """What one call of the ServerApp has sent has the same one."""
    message_type: str = ""
    """Such as `train`."""
    group_id: str = ""
    """What the ServerApp has given: the round, with strategies of older flwr, else empty."""
    put_out: float | None = None
    """When the instruction could be pulled: seconds before now, as the other two."""
    taken: float | None = None
    """When its node had it whole."""
    answered: float | None = None
    """When its reply was accepted."""
    outcome: str = ""
    reason: str = ""
    """What the error says."""
    bytes_sent: int = 0
    """To the node."""
    bytes_recv: int = 0
    """From the node."""
    metrics: Mapping[str, float | None] | None = None
    """Numbers in the reply, by name; None for one that is not finite."""


def exchange_id_of(message_id: str) -> int:
    """Return the number under which an instruction's exchange is kept: what its id begins with."""
    return int(message_id[:16], 16)
