"""Bodies too large for one NATS message, on their way between gateway and superlink."""

import asyncio
import uuid
from contextlib import suppress

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.model.errors import FlowerNatsError, Unavailable

_STREAM = subjects.BLOBS_STREAM
_CHUNK = 1024 * 1024

INLINE = 256 * 1024
"""Bytes up to which a body travels in the message itself."""


class LargeBodies:
    """Deposits a body and fetches it elsewhere, once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dropping: set[asyncio.Task[None]] = set()

    async def put(self, body: bytes) -> str:
        """Deposit a body; return the ticket with which it is fetched within `BLOB_AGE` seconds."""
        blob_id = uuid.uuid4().hex
        pieces = [body[at : at + _CHUNK] for at in range(0, len(body), _CHUNK)]
        await asyncio.gather(
            *(
                self._connection.store(subjects.blob(blob_id, number), piece)
                for number, piece in enumerate(pieces)
            )
        )
        return f"{blob_id}/{len(pieces)}"

    async def get(self, ticket: str) -> bytes:
        """Return the body of a ticket. Raises `Unavailable` if it is gone."""
        blob_id, _, count = ticket.partition("/")
        pieces = await asyncio.gather(
            *(self._piece(blob_id, number) for number in range(int(count)))
        )
        return b"".join(pieces)

    def drop(self, ticket: str) -> None:
        """Have a body forgotten that has been fetched; what has become of it must not wait for that."""
        task = asyncio.create_task(self._drop(ticket), name="drop blob")
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _drop(self, ticket: str) -> None:
        # What cannot be dropped goes with its age.
        with suppress(FlowerNatsError):
            blob_id = ticket.partition("/")[0]
            await self._connection.purge(_STREAM, subjects.blob(blob_id, subjects.ANY))

    async def _piece(self, blob_id: str, number: int) -> bytes:
        record = await self._connection.last(_STREAM, subjects.blob(blob_id, number))
        if record is None:
            raise Unavailable(f"blob {blob_id} is gone")
        return record.data
