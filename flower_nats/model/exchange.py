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
    """The runtime has answered in place of the node."""


@dataclass(slots=True)
class ExchangeNote:
    """New facts about one exchange. None and empty texts mean nothing new."""

    run_id: int
    exchange_id: int
    """See `exchange_id_of`."""
    node_id: int | None = None
    session_id: int = 0
    """Messages of one call of the ServerApp have the same session."""
    message_type: str = ""
    """Such as `train`."""
    group_id: str = ""
    """The group from the ServerApp: the round with strategies of older flwr, else empty."""
    put_out: float | None = None
    """When the instruction could be pulled, in seconds before now, like the next two."""
    taken: float | None = None
    """When its node had received all of it."""
    answered: float | None = None
    """When its reply was accepted."""
    outcome: str = ""
    reason: str = ""
    """The text of the error."""
    bytes_sent: int = 0
    """Bytes to the node."""
    bytes_recv: int = 0
    """Bytes from the node."""
    metrics: Mapping[str, float | None] | None = None
    """Numbers in the reply, by name; None for one that is not finite."""


def exchange_id_of(message_id: str) -> int:
    """Return the number of an instruction's exchange: the beginning of the instruction's id."""
    return int(message_id[:16], 16)
