"""What happens to messages, noted for the history in the console.

A note costs little: it is kept in memory and sent in batches. JetStream itself drops messages that
are done. A process that dies loses the notes of its last second. That leaves a gap in the history
and has no other effect.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flower_nats.broker.in_flight import Instruction
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.model.exchange import ROOM_FOR_TEXT, ExchangeNote, Outcome, exchange_id_of
from flower_nats.wire import common_pb2 as common
from flower_nats.wire.messages import Outgoing

log = get_logger(__name__)

_MOST = 100_000
"""Notes that are kept while no superlink takes them, some 30 MB. With more, the history has a
gap."""

_BATCH = 5_000
"""Notes in one batch: about half a MiB."""


class ExchangeNotes:
    """The notes of one process that are not sent yet, one for each exchange."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._notes: dict[tuple[int, int], ExchangeNote] = {}
        self._dropped = 0
        self._counts = {"put_out": 0, "taken": 0, **{str(one): 0 for one in Outcome}}

    def metrics(self) -> list[Metric]:
        """Return how many messages there were since this process began."""
        return [
            by_label(
                "messages_total",
                "Instructions that were put out and taken, and how they have ended.",
                "step",
                self._counts,
            )
        ]

    def put_out(self, session_id: str, outgoing: Outgoing) -> None:
        """Note that an instruction has come into its node's mailbox."""
        self._counts["put_out"] += 1
        metadata = outgoing.metadata
        note = self._note(metadata.run_id, metadata.message_id)
        if note is not None:
            _describe(note, metadata, session_id)
            note.node_id = metadata.dst_node_id
            note.put_out = time.monotonic()

    def taken(self, instruction: Instruction) -> None:
        """Note that a node has received all of an instruction."""
        self._counts["taken"] += 1
        key = instruction.key
        note = self._note(key.run_id, key.message_id)
        if note is not None:
            note.node_id = key.node_id
            note.taken = time.monotonic()

    def answered(self, outgoing: Outgoing, instruction: Instruction | None) -> None:
        """Note that the reply to an instruction was accepted."""
        metadata = outgoing.metadata
        by_runtime = metadata.src_node_id == SUPERLINK_NODE_ID
        outcome = _outcome(outgoing, by_runtime=by_runtime)
        self._counts[outcome] += 1
        note = self._note(metadata.run_id, metadata.reply_to_message_id)
        if note is None:
            return
        note.answered = time.monotonic()
        if instruction is not None:
            _describe(note, instruction.outgoing.metadata, instruction.key.session_id)
            note.node_id = instruction.key.node_id
        if note.node_id is None and not by_runtime:
            note.node_id = metadata.src_node_id
        note.outcome = outcome
        if outcome is not Outcome.ANSWERED:
            note.reason = outgoing.head.error.reason[:ROOM_FOR_TEXT]

    def traffic(self, run_id: int, message_id: str, *, sent: int = 0, received: int = 0) -> None:
        """Note bytes that were sent to and received from an instruction's node."""
        note = self._note(run_id, message_id)
        if note is not None:
            note.bytes_sent += sent
            note.bytes_recv += received

    def metrics_of(self, run_id: int, message_id: str, found: Mapping[str, float | None]) -> None:
        """Note numbers in the reply to an instruction."""
        note = self._note(run_id, message_id)
        if note is not None:
            note.metrics = {**(note.metrics or {}), **found}

    def _note(self, run_id: int, message_id: str) -> ExchangeNote | None:
        try:
            key = (run_id, exchange_id_of(message_id))
        except ValueError:
            return None
        note = self._notes.get(key)
        if note is None:
            if len(self._notes) >= self._most:
                self._dropped += 1
                return None
            note = self._notes[key] = ExchangeNote(*key)
        return note

    def take(self) -> list[ExchangeNote]:
        """Remove and return some notes; their times are moments of our monotonic clock."""
        if self._dropped:
            log.warning("exchanges_not_recorded", count=self._dropped)
            self._dropped = 0
        if len(self._notes) <= _BATCH:
            notes, self._notes = list(self._notes.values()), {}
            return notes
        keys = list(self._notes)[:_BATCH]
        return [self._notes.pop(key) for key in keys]


NOWHERE = ExchangeNotes(most=0)
"""For parts of the runtime that keep no history."""


def with_ages(notes: Sequence[ExchangeNote]) -> list[ExchangeNote]:
    """Return notes with their times as seconds before now, because clocks of machines differ."""
    now = time.monotonic()

    def age(moment: float | None) -> float | None:
        return None if moment is None else now - moment

    return [
        replace(note, put_out=age(note.put_out), taken=age(note.taken), answered=age(note.answered))
        for note in notes
    ]


def _outcome(reply: Outgoing, *, by_runtime: bool) -> Outcome:
    if not reply.head.HasField("error"):
        return Outcome.ANSWERED
    return Outcome.UNANSWERED if by_runtime else Outcome.FAILED


def _describe(note: ExchangeNote, instruction: common.Metadata, session_id: str) -> None:
    note.message_type = instruction.message_type[:ROOM_FOR_TEXT]
    note.group_id = instruction.group_id[:ROOM_FOR_TEXT]
    note.session_id = exchange_id_of(session_id)
