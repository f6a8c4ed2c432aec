"""What is in flight, as the broker holds it."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from flower_nats.broker.subjects import InstructionKey, ReplyKey, SessionKey
from flower_nats.wire.messages import Outgoing

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

CLOCKS = timedelta(seconds=2)
"""What the clocks of the broker's servers may differ by."""

_REMEMBERED = 1000
_REMEMBERED_BYTES = 16 * 1024
"""Bytes up to which an instruction is remembered: those with large object trees are rare."""


@dataclass(frozen=True)
class Instruction:
    """An instruction as it lies in its node's mailbox."""

    key: InstructionKey
    sequence: int
    taken: bool
    """Whether its node has confirmed it."""
    outgoing: Outgoing


@dataclass(frozen=True)
class Session:
    """A push session as the broker holds it."""

    run_id: int
    session_id: str
    opened_at: str
    """When the broker stored it, RFC 3339."""
    outgoing: tuple[Outgoing, ...]

    @property
    def objects_since(self) -> str:
        """The moment (RFC 3339) since which its objects were stored.

        An older one is not its own, and goes when the messages are done that it belongs to.
        """
        return as_moment(datetime.fromisoformat(self.opened_at) - CLOCKS)


@dataclass
class InFlight:
    """What of a run is in flight."""

    instructions: dict[str, InstructionKey] = field(default_factory=dict)
    """By message id."""
    replies: dict[str, ReplyKey] = field(default_factory=dict)
    """By the id of the instruction they answer."""
    sessions: set[str] = field(default_factory=set)
    """Push sessions."""
    released: set[str] = field(default_factory=set)
    """Those of the sessions whose instructions are all out."""

    def note(self, key: InstructionKey | ReplyKey | SessionKey) -> None:
        """Note what a subject says."""
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
        """The sessions with a message that is not out yet, as far as one can tell."""
        return self.sessions - self.released - {key.session_id for key in self.replies.values()}

    @property
    def spent_sessions(self) -> set[str]:
        """The sessions whose instructions have all been put out, and are over."""
        return self.released - {key.session_id for key in self.instructions.values()}


class Recollection:
    """What this process has lately seen of the mailboxes, which saves looking again.

    It may be out of date. That shows when something is written on its strength, for every write says
    what it was based on; what cannot be seen so must not be decided by it.
    """

    def __init__(self) -> None:
        self._instructions: OrderedDict[int, Instruction] = OrderedDict()
        self._replies: OrderedDict[tuple[int, str], ReplyKey] = OrderedDict()

    def note_instruction(self, instruction: Instruction) -> None:
        """Remember an instruction as the newest that its node has been given."""
        if instruction.outgoing.size <= _REMEMBERED_BYTES:
            _put(self._instructions, instruction.key.node_id, instruction)

    def instruction(self, run_id: int, node_id: int, message_id: str) -> Instruction | None:
        """Return a node's instruction as it was seen last, or None."""
        found = self._instructions.get(node_id)
        if found is None or (found.key.run_id, found.key.message_id) != (run_id, message_id):
            return None
        return found

    def forget_node(self, node_id: int) -> None:
        """Forget what a node was given."""
        self._instructions.pop(node_id, None)

    def note_reply(self, key: ReplyKey) -> None:
        """Remember where a reply lies."""
        _put(self._replies, (key.run_id, key.message_id), key)

    def take_reply(self, run_id: int, reply_id: str) -> ReplyKey | None:
        """Return where a reply lies, or None, and forget it."""
        return self._replies.pop((run_id, reply_id), None)


def as_moment(when: datetime) -> str:
    """Return a time as the broker writes it (RFC 3339)."""
    return when.isoformat().replace("+00:00", "Z")


def _put(remembered: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    remembered[key] = value
    remembered.move_to_end(key)
    if len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
