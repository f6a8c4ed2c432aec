"""Bodies that are too large for one NATS message, in transit between gateway and superlink."""

import asyncio
import uuid
from contextlib import suppress
from functools import partial

from flower_nats.broker import chunks, subjects
from flower_nats.broker.connection import Connection
from flower_nats.model.errors import FlowerNatsError

_STREAM = subjects.BLOBS_STREAM

INLINE = 256 * 1024
"""Bytes up to which a body travels in the message itself."""


class LargeBodies:
    """Deposits a body and fetches it elsewhere, once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dropping: set[asyncio.Task[None]] = set()

    async def put(self, body: bytes) -> str:
        """Deposit a body; return a ticket, with which it can be fetched for `BLOB_AGE` seconds."""
        blob_id = uuid.uuid4().hex
        pieces = chunks.cut(self._connection, body)
        await chunks.store(self._connection, partial(subjects.blob, blob_id), pieces)
        return f"{blob_id}/{len(pieces)}"

    async def get(self, ticket: str) -> bytes:
        """Return the body of a ticket. Raises `Unavailable` if it is gone."""
        blob_id, _, count = ticket.partition("/")
        subject_of = partial(subjects.blob, blob_id)
        pieces = await chunks.fetch(self._connection, _STREAM, subject_of, int(count))
        return b"".join(pieces)

    def drop(self, ticket: str) -> None:
        """Drop a fetched body in the background, so that its receiver need not wait."""
        task = asyncio.create_task(self._drop(ticket), name="drop blob")
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _drop(self, ticket: str) -> None:
        # A body that cannot be dropped is removed by its age.
        with suppress(FlowerNatsError):
            blob_id = ticket.partition("/")[0]
            await self._connection.purge(_STREAM, subjects.blob(blob_id, subjects.ANY))
