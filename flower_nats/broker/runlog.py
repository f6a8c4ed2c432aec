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
from typing import Protocol

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection, Record, WrongSequence

_STREAM = subjects.LOGS_STREAM

_REPLACED = "Fn-Replaced"
"""Header of a notice that is in the place of a log."""

_TURN = 0.01
"""Seconds between two tries to be the one that writes next."""

_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes after which a read is handed on: `flwr log --show` prints only the first batch."""


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
        limit = self._connection.max_payload // 2
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

    async def read(self, run_id: int, after: int) -> tuple[str, int]:
        """Return the text after position `after` and the position it reaches.

        The text is empty if there is no more.
        """
        pieces: list[bytes] = []
        size = 0
        while size < _BATCH_BYTES:
            record = await self._connection.next(_STREAM, subjects.log(run_id), after)
            if record is None:
                break
            pieces.append(record.data)
            size += len(record.data)
            after = record.sequence
        return b"".join(pieces).decode("utf-8", "replace"), after

    async def replace(self, run_id: int, notice: str) -> None:
        """Remove a run's log and leave a notice in its place; of a run without one, leave nothing.

        To do it again, or at once with somebody else, changes nothing more.
        """
        subject = subjects.log(run_id)
        newest = await self._connection.last(_STREAM, subject)
        while newest is not None and _REPLACED not in newest.headers:
            # Before anything is removed: whoever dies in between leaves a log that says too much.
            with suppress(WrongSequence):
                await self._connection.store(
                    subject,
                    notice.encode(),
                    headers={_REPLACED: "1"},
                    expect=(subject, newest.sequence),
                )
            newest = await self._connection.last(_STREAM, subject)
        if newest is not None:
            await self._connection.purge(_STREAM, subject, up_to=newest.sequence)


def _remainder(data: bytes, earlier: Record, source: LogSource, limit: int) -> bytes:
    """Return what of `data` is not in an earlier record: all, or what follows it."""
    if not source.may_repeat(earlier):
        return data
    for at in range(0, len(data), limit):
        if data.startswith(earlier.data, at):
            return data[at + len(earlier.data) :]
    return data
