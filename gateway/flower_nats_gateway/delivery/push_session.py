"""One push session as a gateway sees it: its arrived objects, its complete and released messages.

Several gateways may see the same session, because its objects may come through any of them. Each
has a view, which follows the hints of the others. The gateway that stores the last object of a
message releases the message, and announces that with the object's hint (`claims`), so that the
others need not. If the last two objects of a message arrive at two gateways at the same moment,
neither claims it. Each then sees by the other's hint that the message is complete, and releases it.
The broker accepts one release.
"""

import time
from collections.abc import Iterable, Sequence

from flower_nats.wire.messages import Outgoing

_FRESH = 60.0
"""Seconds without an object for which a view is trusted. Sessions without objects are dropped."""


class PushSession:
    """A view of one push session. Messages are known by their number in it."""

    def __init__(self, run_id: int, session_id: str, outgoing: Sequence[Outgoing]) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.messages = list(outgoing)
        self._members: dict[str, list[int]] = {}
        self._waiting: dict[str, None] = {}
        self._missing: list[int] = []
        self._due: list[int] = []
        self._claimed: set[int] = set()
        self._out: set[int] = set()
        for number, one in enumerate(outgoing):
            ids = one.object_ids
            self._missing.append(len(ids))
            for object_id in ids:
                self._members.setdefault(object_id, []).append(number)
                self._waiting[object_id] = None
        self._touched_at = time.monotonic()

    @property
    def is_fresh(self) -> bool:
        """Whether its session surely exists."""
        return time.monotonic() - self._touched_at < _FRESH

    @property
    def brings_instructions(self) -> bool:
        """Whether its messages are instructions; else they are replies."""
        return not self.answers

    @property
    def answers(self) -> str:
        """The id of the instruction that its first message answers; empty for instructions."""
        return self.messages[0].metadata.reply_to_message_id

    @property
    def sender(self) -> int:
        """The node whose messages these are."""
        return self.messages[0].metadata.src_node_id

    @property
    def object_ids(self) -> list[str]:
        """The objects that have not arrived, each once, children before parents."""
        return list(self._waiting)

    def wants(self, object_id: str) -> bool:
        """Whether the object belongs to this session, arrived or not."""
        return object_id in self._members

    def waits_for(self, object_id: str) -> bool:
        """Whether the object has not arrived yet."""
        return object_id in self._waiting

    def note(self, object_id: str) -> None:
        """Note that an object has arrived, here or at another gateway."""
        self._touched_at = time.monotonic()
        if object_id not in self._waiting:
            return
        del self._waiting[object_id]
        for number in self._members[object_id]:
            self._missing[number] -= 1
            if self._missing[number] == 0 and number not in self._claimed:
                self._due.append(number)

    def note_again(self, object_id: str) -> None:
        """Note that an object has come a second time.

        The gateway that claimed a complete message may have died, so the message is due again.
        """
        again = (one for one in self._members.get(object_id, ()) if self._missing[one] == 0)
        self.put_back(one for one in again if one not in self._out)

    def note_claims(self, numbers: Iterable[int]) -> None:
        """Note that another gateway is about to release these messages."""
        self._claimed.update(numbers)
        self._due = [number for number in self._due if number not in self._claimed]

    def take_due(self) -> list[int]:
        """Return the complete messages that no gateway is releasing, for the caller to release."""
        due, self._due = self._due, []
        return due

    def put_back(self, numbers: Iterable[int]) -> None:
        """Note that messages could not be released, so that the next try is due."""
        self._due += [number for number in numbers if number not in self._due]

    def note_out(self, numbers: Iterable[int]) -> bool:
        """Note that messages are released; return whether these were the last."""
        was_done = self.is_done
        self._out.update(numbers)
        return self.is_done and not was_done

    @property
    def is_done(self) -> bool:
        """Whether every message is released."""
        return len(self._out) == len(self.messages)
