"""What a process remembers of the mailboxes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar

from flower_nats.broker.in_flight import Instruction
from flower_nats.broker.subjects import ReplyKey

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_REMEMBERED = 1000
_REMEMBERED_BYTES = 16 * 1024
"""Bytes up to which an instruction is remembered. Larger ones, with large object trees, are
rare."""


class Recollection:
    """The recent state of the mailboxes, as this process saw it, which saves reading it again.

    It may be out of date. A write detects this, because every write states what it was based on.
    Decisions without such a write must not rely on it.
    """

    def __init__(self) -> None:
        self._instructions: OrderedDict[int, Instruction] = OrderedDict()
        self._replies: OrderedDict[tuple[int, str], ReplyKey] = OrderedDict()

    def note_instruction(self, instruction: Instruction) -> None:
        """Remember an instruction as the newest one given to its node."""
        if instruction.outgoing.size <= _REMEMBERED_BYTES:
            _put(self._instructions, instruction.key.node_id, instruction)

    def instruction(self, run_id: int, node_id: int, message_id: str) -> Instruction | None:
        """Return a node's instruction as it was last seen, or None."""
        found = self._instructions.get(node_id)
        if found is None or (found.key.run_id, found.key.message_id) != (run_id, message_id):
            return None
        return found

    def forget_node(self, node_id: int) -> None:
        """Forget the instruction that was given to a node."""
        self._instructions.pop(node_id, None)

    def note_reply(self, key: ReplyKey) -> None:
        """Remember where a reply lies."""
        _put(self._replies, (key.run_id, key.message_id), key)

    def take_reply(self, run_id: int, reply_id: str) -> ReplyKey | None:
        """Return and forget where a reply lies; None if it is not known."""
        return self._replies.pop((run_id, reply_id), None)


def _put(remembered: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    remembered[key] = value
    remembered.move_to_end(key)
    if len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
