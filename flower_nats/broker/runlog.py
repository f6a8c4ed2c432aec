"""A run's log lines in JetStream.

The position of a line is the sequence the broker gave it: strictly rising within a run, whichever
replica took the line in. It is exact as the `latest_timestamp` double of Flower's StreamLogs (up to
2**53), which clients only send back to continue from there.

Lines are stored once. A stock client whose call failed sends its lines again, perhaps with newer
lines after them. It names neither call nor lines, so lines sent again look like lines printed
again. The difference is whether the client can have received the answer to the earlier call; the
source of lines (`LogSource`) knows this. The broker takes only lines that follow the newest ones
their writer has seen, so a writer that was stopped in between cannot bring stale lines.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from flower_nats.broker import subjects
from flower_nats.broker.connection import (
    Connection,
    NoRoom,
    Record,
    WrongSequence,
)
from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable

log = get_logger(__name__)

_STREAM = subjects.LOGS_STREAM

_REPLACED = "Fn-Replaced"
"""Header of a notice that replaces a log."""

_TURN = 0.01
"""Seconds between two tries to write next."""

BATCH_BYTES = 8 * 1024 * 1024
"""Bytes after which a read returns: `flwr log --show` prints only the first batch."""

RECORD_BYTES = 256 * 1024
"""The largest record, in bytes. A read takes whole records, so a gateway holds this much for each
follower that takes nothing."""

_BULK_BYTES = 1024 * 1024
"""Bytes of one bulk request: if a message is lost, no more than that was sent in vain."""

_READ_SECONDS = 1.5
"""Seconds after which a read returns the lines it has: `flwr log --show` waits for 5."""


class LogSource(Protocol):
    """A call that brings lines."""

    @property
    def request_id(self) -> str:
        """The id of the call; a balancer's repetition has the same id."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that are stored with the lines."""

    def may_repeat(self, earlier: Record) -> bool:
        """Whether this call may repeat lines of an earlier call."""


class RunLogs:
    """The logs of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, run_id: int, text: str, source: LogSource) -> int:
        """Add text to a run's log and wake its followers; return the position after it."""
        limit = min(RECORD_BYTES, self._connection.max_payload // 2)
        subject, data = subjects.log(run_id), text.encode()
        newest = await self._connection.last(_STREAM, subject)
        position = newest.sequence if newest else 0
        if newest:
            data = _remainder(data, newest, source, limit)
        while data:
            try:
                stored = await self._connection.store(
                    subject,
                    data[:limit],
                    headers=source.headers,
                    # The id is the same for every attempt at this piece, and for no other piece.
                    message_id=f"log.{source.request_id}.{len(data)}",
                    expect=(subject, position),
                )
                position, data = stored.sequence, data[limit:]
            except WrongSequence:
                position, data = await self._catch_up(run_id, position, data, source, limit)
                # Lines that another writer stores right now are not visible yet.
                await asyncio.sleep(_TURN)
        await self._connection.hint(subjects.wake_log(run_id), str(position).encode())
        return position

    async def _catch_up(
        self, run_id: int, position: int, data: bytes, source: LogSource, limit: int
    ) -> tuple[int, bytes]:
        """Read what others have stored since; return the newest position and the rest of `data`."""
        while True:
            record = await self._connection.next(_STREAM, subjects.log(run_id), position)
            if record is None:
                return position, data
            position = record.sequence
            data = _remainder(data, record, source, limit)

    async def read(self, run_id: int, after: int, at_most: int = BATCH_BYTES) -> tuple[str, int]:
        """Return the text after position `after` and the position it reaches.

        The text is empty if there is no more. It may be less than there is: about `at_most` bytes, and
        see `_READ_SECONDS`.
        """
        records = await self.records(run_id, after, at_most)
        text = b"".join(record.data for record in records).decode("utf-8", "replace")
        return text, records[-1].sequence if records else after

    async def records(self, run_id: int, after: int, at_most: int = BATCH_BYTES) -> list[Record]:
        """Return what `read` does, as records: lines that a client added at once are in one."""
        batch = _Batch(subjects.log(run_id), after, at_most)
        if await self._take_next(batch):
            with suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(_READ_SECONDS):
                    await self._fill(batch)
        return batch.records

    async def _fill(self, batch: "_Batch") -> None:
        """Read all records: in bulk while that returns any, and otherwise by `next`.

        While a log is followed, one call mostly adds one record, which takes a single `next`.
        """
        in_bulk = True
        while batch.left > 0 and await self._take_next(batch):
            if in_bulk:
                in_bulk = await self._take_bulk(batch)

    async def _take_bulk(self, batch: "_Batch") -> bool:
        before = batch.position
        # A follower that hangs leaves half of the time to `next`.
        with suppress(Unavailable):
            await self._connection.bulk(
                _STREAM,
                batch.subject,
                before,
                batch.take,
                size=min(_BULK_BYTES, max(batch.left, 1)),
                timeout=_READ_SECONDS / 2,
            )
        return batch.position > before

    async def _take_next(self, batch: "_Batch") -> bool:
        record = await self._connection.next(_STREAM, batch.subject, batch.position)
        if record is not None:
            batch.take(record)
        return record is not None

    async def replace(self, run_id: int, notice: str) -> None:
        """Replace a run's log by a notice; a run without a log gets none.

        If there is no room for the notice, even after removing lines, the log is removed without
        one. Repeating this call, or running it twice at once, changes nothing more.
        """
        subject = subjects.log(run_id)
        newest = await self._connection.last(_STREAM, subject)
        while newest is not None and _REPLACED not in newest.headers:
            # The notice comes before the removal: a superlink that dies in between leaves lines,
            # not a gap.
            try:
                await self._connection.store(
                    subject,
                    notice.encode(),
                    headers={_REPLACED: "1"},
                    expect=(subject, newest.sequence),
                    await_room=False,
                )
            except WrongSequence:
                pass
            except NoRoom as exc:
                await self._make_room(run_id, newest, str(exc))
            newest = await self._connection.last(_STREAM, subject)
        if newest is not None:
            await self._connection.purge(_STREAM, subject, up_to=newest.sequence)

    async def remove(self, run_id: int) -> None:
        """Remove a run's log without a notice."""
        await self._connection.purge(_STREAM, subjects.log(run_id))

    async def _make_room(self, run_id: int, newest: Record, reason: str) -> None:
        """Remove a log except its newest record; if that is the only one, remove it."""
        oldest = await self._connection.next(_STREAM, newest.subject)
        if oldest is None:
            return
        # A removal takes no room.
        if oldest.sequence < newest.sequence:
            await self._connection.purge(_STREAM, newest.subject, up_to=newest.sequence)
        else:
            await self._connection.purge(_STREAM, newest.subject, up_to=newest.sequence + 1)
            log.warning("log_removed_without_notice", run_id=run_id, reason=reason)


@dataclass
class _Batch:
    """The records of one read."""

    subject: str
    position: int
    """Position of the newest record in the batch; at first, the position to read after."""
    left: int
    """Bytes that the batch may still take; the last record may exceed it."""
    records: list[Record] = field(default_factory=list)

    def take(self, record: Record) -> None:
        """Add the record that follows."""
        self.position = record.sequence
        self.left -= len(record.data)
        self.records.append(record)


def _remainder(data: bytes, earlier: Record, source: LogSource, limit: int) -> bytes:
    """Return the part of `data` that is not in an earlier record: all, or the rest after it."""
    if not source.may_repeat(earlier):
        return data
    for at in range(0, len(data), limit):
        if data.startswith(earlier.data, at):
            return data[at + len(earlier.data) :]
    return data
