"""The messages in flight, as the broker holds them."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flower_nats.broker.subjects import InstructionKey, ReplyKey, SessionKey
from flower_nats.wire.messages import Outgoing

CLOCKS = timedelta(seconds=2)
"""Seconds by which the clocks of the broker's servers may differ."""


@dataclass(frozen=True)
class Instruction:
    """An instruction as it lies in its node's mailbox."""

    key: InstructionKey
    sequence: int
    taken: bool
    """Whether its node has confirmed it."""
    said_at: float
    """When, by its clock, the node confirmed it or said that it starts anew; 0 for neither."""
    outgoing: Outgoing


@dataclass(frozen=True)
class SessionRecord:
    """A push session as the broker holds it."""

    run_id: int
    session_id: str
    opened_at: str
    """When the broker stored it, RFC 3339."""
    outgoing: tuple[Outgoing, ...]

    @property
    def objects_since(self) -> str:
        """The moment (RFC 3339) since which its objects were stored.

        An older object belongs to other messages, and is dropped with them.
        """
        return as_moment(datetime.fromisoformat(self.opened_at) - CLOCKS)


@dataclass
class InFlight:
    """The messages in flight of one run."""

    instructions: dict[str, InstructionKey] = field(default_factory=dict)
    """By message id."""
    replies: dict[str, ReplyKey] = field(default_factory=dict)
    """By the id of the instruction they answer."""
    sessions: set[str] = field(default_factory=set)
    """Push sessions."""
    released: set[str] = field(default_factory=set)
    """The sessions whose instructions have all been released."""

    def note(self, key: InstructionKey | ReplyKey | SessionKey) -> None:
        """Note a message by its subject."""
        if isinstance(key, InstructionKey):
            self.instructions[key.message_id] = key
        elif isinstance(key, ReplyKey):
            self.replies[key.instruction_id] = key
        else:
            self.sessions.add(key.session_id)
            if key.released:
                self.released.add(key.session_id)

    @property
    def unfinished_sessions(self) -> set[str]:
        """The sessions with a message that is not released yet, as far as the subjects tell."""
        return self.sessions - self.released - {key.session_id for key in self.replies.values()}

    @property
    def spent_sessions(self) -> set[str]:
        """The sessions whose instructions were all released and are over."""
        return self.released - {key.session_id for key in self.instructions.values()}


def as_moment(when: datetime) -> str:
    """Return a time in the broker's format (RFC 3339)."""
    return when.isoformat().replace("+00:00", "Z")
