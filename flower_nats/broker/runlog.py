"""A run's log lines in JetStream.

The position of a line is the sequence the broker gave it: strictly rising within a run whichever
replica took the line in, and exact as the `latest_timestamp` double of Flower's StreamLogs (up to
2**53), which clients only hand back to go on from there.
"""

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection

_STREAM = subjects.LOGS_STREAM

_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes after which a read is handed on: `flwr log --show` prints only the first batch."""


class RunLogs:
    """The logs of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, run_id: int, text: str) -> None:
        """Add text to a run's log and wake who follows it."""
        limit = self._connection.max_payload // 2
        data = text.encode()
        for at in range(0, len(data), limit):
            await self._connection.store(subjects.log(run_id), data[at : at + limit])
        await self._connection.hint(subjects.wake_log(run_id))

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
