"""Bodies too large for one NATS message, on their way between gateway and superlink."""

import asyncio
import uuid

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.model.errors import Unavailable

_STREAM = subjects.BLOBS_STREAM
_CHUNK = 1024 * 1024

INLINE = 256 * 1024
"""Bytes up to which a body travels in the message itself."""


class Blobs:
    """Deposits a body and fetches it elsewhere, once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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

    async def drop(self, ticket: str) -> None:
        """Forget a body that has been fetched."""
        blob_id = ticket.partition("/")[0]
        await self._connection.purge(_STREAM, subjects.blob(blob_id, subjects.ANY))

    async def _piece(self, blob_id: str, number: int) -> bytes:
        record = await self._connection.last(_STREAM, subjects.blob(blob_id, number))
        if record is None:
            raise Unavailable(f"blob {blob_id} is gone")
        return record.data
