"""Messages in flight: instructions, replies, and the push sessions that bring them in.

The rules:

- Nothing is visible before it is complete. A push session holds messages while their objects
  arrive. After that, an instruction is released to its node, and a reply is accepted.
- Pull is a lease: an instruction is handed out until its node confirms it (`take`), it expires, or
  its run ends. A node that starts anew gets the instructions again that it had confirmed and not
  answered (`reoffer`).
- The reply is the end: a reply is written only if the instruction is the newest message of its
  exchange. So there is never a second reply, however late, and no reply to an expired instruction.

Every write is conditional on what was read, so that two replicas that do the same thing at once do
it once. The release of an instruction also has a message id. An instruction that is over leaves
nothing behind, so only the message id refuses a later second release.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

import msgpack

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection, Record, WrongSequence
from flower_nats.broker.exchange_notes import NOWHERE, ExchangeNotes
from flower_nats.broker.in_flight import InFlight, Instruction, SessionRecord
from flower_nats.broker.mailbox_cache import Recollection
from flower_nats.broker.subjects import ANY, InstructionKey, ReplyKey
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire import common_pb2 as common
from flower_nats.wire.messages import Outgoing, expired, expires_at

_STREAM = subjects.MESSAGES_STREAM
_TAKEN = "Fn-Taken"
_SAID_AT = "Fn-Said-At"
_PARTS = "Fn-Parts"
_PART_BYTES = 512 * 1024

_ENVELOPE = 4096


class Mailbox:
    """The mailboxes of all nodes and runs."""

    def __init__(self, connection: Connection, notes: ExchangeNotes = NOWHERE) -> None:
        """`notes` records what happens to messages."""
        self._connection = connection
        self._seen = Recollection()
        self._notes = notes

    # Push sessions

    async def open_session(self, run_id: int, outgoing: Sequence[Outgoing]) -> str:
        """Record messages before their objects arrive; return the session's id.

        The same messages get the same session, so that a second try continues the first. Raises
        `ApiError` (MALFORMED_REQUEST) if one message is larger than the broker takes.
        """
        session_id = session_id_of(outgoing)
        parts = _parts(outgoing, self._connection.max_payload - _ENVELOPE)
        headers = {_PARTS: str(len(parts))}
        await asyncio.gather(
            *(
                self._store_new(subjects.push(run_id, session_id, number), part, headers)
                for number, part in enumerate(parts)
            )
        )
        return session_id

    async def _store_new(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        # An existing part is kept: the session must be older than the objects that came after it.
        with suppress(WrongSequence):
            await self._connection.store(subject, data, headers=headers, expect=(subject, 0))

    async def load_session(self, run_id: int, session_id: str) -> SessionRecord | None:
        """Return a push session, None if there is none."""
        if not session_id.isalnum():
            return None
        # Parts are sorted by number: a part that had to be stored again comes after the others.
        parts: dict[int, list[Outgoing]] = {}
        opened_at, after, wanted = "", 0, 1
        while len(parts) < wanted:
            record = await self._connection.next(
                _STREAM, subjects.push(run_id, session_id, ANY), after
            )
            if record is None:
                return None
            opened_at = opened_at or record.time
            after, wanted = record.sequence, int(record.headers[_PARTS])
            number = int(record.subject.rpartition(".")[2])
            parts[number] = [_outgoing(pair) for pair in msgpack.unpackb(record.data)]
        outgoing = chain.from_iterable(parts[number] for number in sorted(parts))
        return SessionRecord(run_id, session_id, opened_at, tuple(outgoing))

    async def close_session(self, run_id: int, session_id: str) -> None:
        """Forget a push session, and its reply if it brought one."""
        await self._connection.purge(_STREAM, subjects.session(run_id, session_id))

    async def mark_released(self, run_id: int, session_id: str) -> None:
        """Note that every instruction of a session is released."""
        await self._connection.store(subjects.released(run_id, session_id), b"")

    # Instructions

    async def release(self, session_id: str, outgoing: Outgoing) -> None:
        """Put an instruction into its node's mailbox, once, when all its objects have arrived."""
        metadata = outgoing.metadata
        if expired(metadata):
            return
        run_id, message_id = metadata.run_id, metadata.message_id
        # The broker refuses it if it was released or answered. The hint is sent all the same: the
        # gateway that released it may have died before the hint.
        with suppress(WrongSequence):
            await self._connection.store(
                subjects.instruction(run_id, metadata.dst_node_id, session_id, message_id),
                _pack(outgoing),
                message_id=f"instruction.{message_id}",
                expect=(subjects.exchange(run_id, message_id), 0),
                ttl=expires_at(metadata) - time.time(),
            )
            self._notes.put_out(session_id, outgoing)
        await self._connection.hint(subjects.wake_node(metadata.dst_node_id))

    async def next_instruction(self, node_id: int) -> Instruction | None:
        """Return the oldest instruction that this node has not confirmed and that has not expired."""
        found = await self.instruction_after(0, ANY, node_id)
        while found is not None and (found.taken or expired(found.outgoing.metadata)):
            found = await self.instruction_after(found.sequence, ANY, node_id)
        if found is not None:
            self._seen.note_instruction(found)
        return found

    async def find_instruction(
        self, run_id: int, node_id: int | str, message_id: str
    ) -> Instruction | None:
        """Return an instruction that is in flight, or None."""
        record = await self._connection.next(
            _STREAM, subjects.instruction(run_id, node_id, ANY, message_id)
        )
        return _instruction(record) if record else None

    async def written(self, key: InstructionKey) -> tuple[Instruction, str] | None:
        """Return an instruction, and when (RFC 3339) it was released or, if taken, confirmed."""
        record = await self._connection.last(_STREAM, key.subject)
        return (_instruction(record), record.time) if record else None

    async def answered_at(self, key: ReplyKey) -> str:
        """Return when (RFC 3339) a reply was accepted; empty if it was confirmed meanwhile."""
        record = await self._connection.last(_STREAM, key.subject)
        return record.time if record else ""

    async def instruction_after(
        self, sequence: int, run_id: int | str, node_id: int
    ) -> Instruction | None:
        """Return a node's first instruction after `sequence`, of one run or of `ANY`."""
        record = await self._connection.next(
            _STREAM, subjects.instruction(run_id, node_id, ANY, ANY), sequence
        )
        return _instruction(record) if record else None

    async def owes_reply(self, run_id: int, node_id: int) -> bool:
        """Return whether a node has confirmed an instruction of this run, and not answered it."""
        found = await self.instruction_after(0, run_id, node_id)
        while found is not None and not found.taken:
            found = await self.instruction_after(found.sequence, run_id, node_id)
        return found is not None

    async def recall_instruction(
        self, run_id: int, node_id: int, message_id: str
    ) -> Instruction | None:
        """Return an instruction as this process last saw it, else from the broker."""
        seen = self._seen.instruction(run_id, node_id, message_id)
        return seen or await self.find_instruction(run_id, node_id, message_id)

    def forget_node(self, node_id: int) -> None:
        """Look again at what a node has in its mailbox: it may have changed."""
        self._seen.forget_node(node_id)

    async def take(self, run_id: int, node_id: int, message_id: str, said_at: float) -> None:
        """Note that a node has received its instruction; do nothing if it is gone or already noted.

        It also does nothing if the node has started anew since: the confirmation is then from a
        process that is gone. `said_at` is the time of the confirmation, by the node's own clock.
        """
        found = await self.recall_instruction(run_id, node_id, message_id)
        if found is not None and found.taken:
            self._seen.forget_node(node_id)
            found = await self.find_instruction(run_id, node_id, message_id)
        if found is None or found.taken or found.said_at > said_at:
            return
        if await self._restore(found, taken=True, said_at=said_at):
            self._notes.taken(found)

    async def reoffer(self, node_id: int, said_at: float) -> int:
        """Offer a node again the instructions it has confirmed and not answered; return how many.

        `said_at` is when, by its own clock, the node said that it starts anew. Instructions that it
        has confirmed since then stay confirmed. Unconfirmed instructions are rewritten too: a
        confirmation that the dead process sent, and that a gateway still has in hand, then comes
        too late.
        """
        again: list[Instruction] = []
        next_one = await self.instruction_after(0, ANY, node_id)
        while next_one is not None:
            if next_one.said_at <= said_at:
                again.append(next_one)
            next_one = await self.instruction_after(next_one.sequence, ANY, node_id)
        for found in again:
            await self._offer(found, said_at)
        if again:
            await self._connection.hint(subjects.wake_node(node_id))
        return sum(found.taken for found in again)

    async def _offer(self, instruction: Instruction, said_at: float) -> None:
        found: Instruction | None = instruction
        while found is not None and found.said_at <= said_at:
            if await self._restore(found, taken=False, said_at=said_at):
                return
            key = found.key
            found = await self.find_instruction(key.run_id, key.node_id, key.message_id)

    async def _restore(self, found: Instruction, *, taken: bool, said_at: float) -> bool:
        """Rewrite an instruction, as taken or not; return False if it has changed since."""
        key, metadata = found.key, found.outgoing.metadata
        if expired(metadata):
            return True
        self._seen.forget_node(key.node_id)
        headers = {_SAID_AT: repr(said_at), **({_TAKEN: "1"} if taken else {})}
        try:
            stored = await self._connection.store(
                subjects.instruction(key.run_id, key.node_id, key.session_id, key.message_id),
                _pack(found.outgoing),
                headers=headers,
                expect=(subjects.exchange(key.run_id, key.message_id), found.sequence),
                ttl=expires_at(metadata) - time.time(),
            )
        except WrongSequence:
            return False
        if not stored.duplicate:
            self._seen.note_instruction(
                replace(found, sequence=stored.sequence, taken=taken, said_at=said_at)
            )
        return True

    # Replies

    async def accept_reply(self, run_id: int, session_id: str, outgoing: Outgoing) -> bool:
        """Accept the reply to an instruction unless it is over; return whether this is its reply.

        An accepted reply ends the instruction. The session of a refused reply is dropped.
        """
        metadata = outgoing.metadata
        instruction_id, node_id = metadata.reply_to_message_id, _replying_node(metadata)
        subject = subjects.reply(run_id, session_id, instruction_id, metadata.message_id)
        seen = self._seen.instruction(run_id, metadata.src_node_id, instruction_id)
        self._seen.forget_node(metadata.src_node_id)
        while True:
            instruction = seen or await self.find_instruction(run_id, node_id, instruction_id)
            seen = None
            if instruction is not None and await self._store_reply(
                subject, outgoing, instruction.sequence
            ):
                break
            holder = await self._find_reply(run_id, instruction_id)
            if holder == subject:
                # The reply was stored at the first try, and the acknowledgement was lost.
                break
            if instruction is None or holder is not None:
                await self.close_session(run_id, session_id)
                return False
            # The instruction was just confirmed by its node, or offered anew: try again.
        self._notes.answered(outgoing, instruction)
        await self.end_instruction(run_id, instruction_id, node_id)
        # The hint comes after the end of the instruction: a woken ServerApp must never see both.
        await self._connection.hint(subjects.wake_run(run_id), subject.encode())
        return True

    async def replace_reply(self, old: ReplyKey, session_id: str, outgoing: Outgoing) -> bool:
        """Replace a reply by another one; return False if it is gone or was replaced before."""
        subject = subjects.reply(
            old.run_id, session_id, old.instruction_id, outgoing.metadata.message_id
        )
        record = await self._connection.last(_STREAM, old.subject)
        stored = record is not None and await self._store_reply(subject, outgoing, record.sequence)
        # The new reply may be stored all the same: the acknowledgement may have been lost.
        if not stored and await self._connection.last(_STREAM, subject) is None:
            await self.close_session(old.run_id, session_id)
            session_id = ""
        # A reply that could not be replaced was replaced before. The old session is over either
        # way.
        await self.close_session(old.run_id, old.session_id)
        return bool(session_id)

    async def _store_reply(self, subject: str, outgoing: Outgoing, newest: int) -> bool:
        key = subjects.parse(subject)
        assert isinstance(key, ReplyKey)
        expect = (subjects.exchange(key.run_id, key.instruction_id), newest)
        try:
            await self._connection.store(subject, _pack(outgoing), expect=expect)
        except WrongSequence:
            return False
        return True

    async def _find_reply(self, run_id: int, instruction_id: str) -> str | None:
        """Return the subject of the reply to an instruction."""
        record = await self._connection.next(
            _STREAM, subjects.reply(run_id, ANY, instruction_id, ANY)
        )
        return record.subject if record else None

    async def end_instruction(
        self, run_id: int, instruction_id: str, node_id: int | str = ANY
    ) -> None:
        """Remove an instruction that has its reply from its node's mailbox."""
        await self._connection.purge(
            _STREAM, subjects.instruction(run_id, node_id, ANY, instruction_id)
        )

    async def read_reply(self, key: ReplyKey) -> Outgoing | None:
        """Return a reply, None if it was confirmed meanwhile."""
        record = await self._connection.last(_STREAM, key.subject)
        if record is None:
            return None
        self._seen.note_reply(key)
        return _outgoing(msgpack.unpackb(record.data))

    async def confirm_reply(self, run_id: int, reply_id: str) -> None:
        """Drop a reply that the ServerApp has received; do nothing if it was dropped before."""
        key = self._seen.take_reply(run_id, reply_id)
        if key is None:
            subject = subjects.reply(run_id, ANY, ANY, reply_id)
            record = await self._connection.next(_STREAM, subject)
            if record is None:
                return
            key = _reply(record)
        await self.close_session(run_id, key.session_id)

    # Runs

    async def in_flight(self, run_id: int | None = None) -> dict[int, InFlight]:
        """Return the messages in flight, of one run or of all, by run id."""
        subject_filter = subjects.run(run_id) if run_id is not None else subjects.MESSAGES_SUBJECTS
        found: dict[int, InFlight] = {}
        for subject in await self._connection.subjects(_STREAM, subject_filter):
            key = subjects.parse(subject)
            found.setdefault(key.run_id, InFlight()).note(key)
        return found

    async def end_run(self, run_id: int) -> None:
        """Drop all messages and objects of a finished run."""
        await self._connection.purge(_STREAM, subjects.run(run_id))
        await self._connection.purge(subjects.OBJECTS_STREAM, subjects.objects(run_id))


def _replying_node(reply: common.Metadata) -> int | str:
    """Return the id of the replying node if it is known, which speeds up the broker's search."""
    return ANY if reply.src_node_id == SUPERLINK_NODE_ID else reply.src_node_id


def session_id_of(outgoing: Sequence[Outgoing]) -> str:
    """Return the id of the push session of these messages."""
    ids = ",".join(one.metadata.message_id for one in outgoing)
    return hashlib.sha256(ids.encode()).hexdigest()[:32]


def _pack(outgoing: Outgoing) -> bytes:
    return bytes(msgpack.packb((outgoing.message, outgoing.tree)))


def _outgoing(pair: Sequence[bytes]) -> Outgoing:
    return Outgoing(pair[0], pair[1])


def _instruction(record: Record) -> Instruction:
    key = subjects.parse(record.subject)
    assert isinstance(key, InstructionKey)
    outgoing = _outgoing(msgpack.unpackb(record.data))
    said_at = float(record.headers.get(_SAID_AT, 0.0))
    return Instruction(key, record.sequence, _TAKEN in record.headers, said_at, outgoing)


def _reply(record: Record) -> ReplyKey:
    key = subjects.parse(record.subject)
    assert isinstance(key, ReplyKey)
    return key


def _parts(outgoing: Sequence[Outgoing], limit: int) -> list[bytes]:
    """Group messages into records of about `_PART_BYTES`, none above `limit` bytes."""
    groups: list[list[tuple[bytes, bytes]]] = [[]]
    size = 0
    for one in outgoing:
        if one.size > limit:
            reason = (
                f"message {one.metadata.message_id} has {one.size} bytes of metadata and object tree; "
                f"the broker takes {limit}: send fewer arrays, or raise its max_payload"
            )
            raise ApiError(ErrorCode.MALFORMED_REQUEST, reason, public_details=reason)
        if groups[-1] and size + one.size > min(_PART_BYTES, limit):
            groups.append([])
            size = 0
        groups[-1].append((one.message, one.tree))
        size += one.size
    return [bytes(msgpack.packb(group)) for group in groups]
