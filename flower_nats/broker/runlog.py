"""A run's log lines in JetStream.

The position of a line is the sequence the broker gave it: strictly rising within a run whichever
replica took the line in, and exact as the `latest_timestamp` double of Flower's StreamLogs (up to
2**53), which clients only hand back to go on from there.

Lines are stored once. A stock client sends lines again when the call that brought them failed, alone
or with newer lines behind them, and names neither call nor lines, so that lines sent again look like
lines printed again. What tells them apart is whether the client can have got the answer to the call
before: the source of lines (`LogSource`) knows. The broker only takes lines that follow the newest
ones their writer has seen, so that a writer that was stopped in between cannot bring stale lines.
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
"""Header of a notice that is in the place of a log."""

_TURN = 0.01
"""Seconds between two tries to be the one that writes next."""

BATCH_BYTES = 8 * 1024 * 1024
"""Bytes after which a read is handed on: `flwr log --show` prints only the first batch."""

RECORD_BYTES = 256 * 1024
"""Bytes of one record at most, which is the least that can be read at once: for each follower who takes
nothing, its gateway holds as much."""

_BULK_BYTES = 1024 * 1024
"""Bytes that are asked for at once: no more than that is sent in vain if some of it is lost."""

_READ_SECONDS = 1.5
"""Seconds after which a read that has anything is handed on: `flwr log --show` waits for 5."""


class LogSource(Protocol):
    """A call that brings lines."""

    @property
    def request_id(self) -> str:
        """Names the call; a balancer that makes it again names it alike."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What is stored beside the lines."""

    def may_repeat(self, earlier: Record) -> bool:
        """Whether this call may bring lines again that an earlier call has brought."""


class RunLogs:
    """The logs of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, run_id: int, text: str, source: LogSource) -> int:
        """Add text to a run's log and wake who follows it; return the position it reaches."""
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
                    # The same for every attempt at this piece, and for no other.
                    message_id=f"log.{source.request_id}.{len(data)}",
                    expect=(subject, position),
                )
                position, data = stored.sequence, data[limit:]
            except WrongSequence:
                position, data = await self._catch_up(run_id, position, data, source, limit)
                # What another one writes right now cannot be seen yet.
                await asyncio.sleep(_TURN)
        await self._connection.hint(subjects.wake_log(run_id), str(position).encode())
        return position

    async def _catch_up(
        self, run_id: int, position: int, data: bytes, source: LogSource, limit: int
    ) -> tuple[int, bytes]:
        """Look at what others have stored since; return the newest position and what is left."""
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
        """Return what `read` does, record by record: what a client has added at once is in one."""
        batch = _Batch(subjects.log(run_id), after, at_most)
        if await self._take_next(batch):
            with suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(_READ_SECONDS):
                    await self._fill(batch)
        return batch.records

    async def _fill(self, batch: "_Batch") -> None:
        """Take what there is: in bulk while that gives anything, and else, and at last, by `next`.

        What one call adds while somebody follows is mostly one record, which `next` alone gets.
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
        """Remove a run's log and leave a notice in its place; of a run without one, leave nothing.

        Nothing is left either if there is no room for a notice, not even in the place of the lines. To
        do it again, or at once with somebody else, changes nothing more.
        """
        subject = subjects.log(run_id)
        newest = await self._connection.last(_STREAM, subject)
        while newest is not None and _REPLACED not in newest.headers:
            # Before anything is removed: a superlink that dies in between leaves lines, not a gap.
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
        """Remove a run's log without a trace."""
        await self._connection.purge(_STREAM, subjects.log(run_id))

    async def _make_room(self, run_id: int, newest: Record, reason: str) -> None:
        """Remove a log up to its newest record, or, where that is the only one, the log."""
        oldest = await self._connection.next(_STREAM, newest.subject)
        if oldest is None:
            return
        # To remove something takes no room.
        if oldest.sequence < newest.sequence:
            await self._connection.purge(_STREAM, newest.subject, up_to=newest.sequence)
        else:
            await self._connection.purge(_STREAM, newest.subject, up_to=newest.sequence + 1)
            log.warning("log_removed_without_notice", run_id=run_id, reason=reason)


@dataclass
class _Batch:
    """What one read has come to."""

    subject: str
    position: int
    """Of the newest record in it; at first, of the one before it."""
    left: int
    """Bytes that it may still take; the last record may bring more."""
    records: list[Record] = field(default_factory=list)

    def take(self, record: Record) -> None:
        """Add the record that follows."""
        self.position = record.sequence
        self.left -= len(record.data)
        self.records.append(record)


def _remainder(data: bytes, earlier: Record, source: LogSource, limit: int) -> bytes:
    """Return what of `data` is not in an earlier record: all, or what follows it."""
    if not source.may_repeat(earlier):
        return data
    for at in range(0, len(data), limit):
        if data.startswith(earlier.data, at):
            return data[at + len(earlier.data) :]
    return data
