"""Which objects a node may get: those that an instruction in its own mailbox names."""

import re
from array import array
from bisect import bisect_left
from collections import OrderedDict
from typing import NamedTuple

from flower_nats.broker.in_flight import Instruction
from flower_nats.broker.mailbox import Mailbox

_REMEMBERED_BYTES = 32 * 1024 * 1024
"""Bytes of ids that a gateway remembers, 8 for each. Forgotten ids are read from the broker."""

_ENTRY_BYTES = 512
"""Further bytes for each remembered instruction."""

_OBJECT_ID = re.compile(rb"[0-9a-f]{64}")


class _Named(NamedTuple):
    message_id: str
    ids: "array[int]"


class NamedObjects:
    """Remembers the objects of instructions, for nodes that got them or asked for an object."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._size = 0
        self._named: OrderedDict[tuple[int, int], _Named] = OrderedDict()
        """The objects of the newest instruction, by run and node."""

    def note(self, instruction: Instruction) -> None:
        """Remember an instruction that its node gets: the node will ask for its objects next."""
        key = (instruction.key.run_id, instruction.key.node_id)
        self._forget(key)
        ids = _ids(instruction.outgoing.tree)
        self._named[key] = _Named(instruction.key.message_id, ids)
        self._size += _size(ids)
        while self._size > _REMEMBERED_BYTES and len(self._named) > 1:
            self._forget(next(iter(self._named)))

    async def names(self, run_id: int, node_id: int, object_id: str) -> bool:
        """Return whether an instruction of this run, in flight to this node, names an object.

        A positive answer may be from memory, for a while after the instruction's end. A negative
        answer always comes from the broker.
        """
        key, wanted = (run_id, node_id), _short(object_id.encode())
        known = self._named.get(key)
        if known is not None and _holds(known.ids, wanted):
            self._named.move_to_end(key)
            return True
        found = await self._mailbox.instruction_after(0, run_id, node_id)
        while found is not None:
            if _holds(_ids(found.outgoing.tree), wanted):
                self.note(found)
                return True
            found = await self._mailbox.instruction_after(found.sequence, run_id, node_id)
        return False

    def named_by(self, run_id: int, node_id: int) -> str:
        """Return the id of a node's remembered instruction, empty if there is none."""
        known = self._named.get((run_id, node_id))
        return "" if known is None else known.message_id

    def _forget(self, key: tuple[int, int]) -> None:
        gone = self._named.pop(key, None)
        if gone is not None:
            self._size -= _size(gone.ids)


def _ids(tree: bytes) -> "array[int]":
    """Return the ids in an object tree, shortened and sorted."""
    # An id always stands between bytes that are no hex digits.
    return array("Q", sorted(_short(found) for found in _OBJECT_ID.findall(tree)))


def _size(ids: "array[int]") -> int:
    return len(ids) * ids.itemsize + _ENTRY_BYTES


def _short(object_id: bytes) -> int:
    return int(object_id[:16], 16)


def _holds(ids: "array[int]", wanted: int) -> bool:
    at = bisect_left(ids, wanted)
    return at < len(ids) and ids[at] == wanted
