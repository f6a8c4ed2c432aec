"""Contents in chunks, sent as plain messages, with a bounded window of chunks in transit.

Chunks that a client has requested and not yet read wait in nats-server, which cuts the client off
at 64 MB (`max_pending`). So all contents of a connection, however large and however many, share a
window of chunks in each direction (`Connection.sending` and `Connection.fetching`).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from flower_nats.broker.connection import WINDOW, Connection
from flower_nats.model.errors import Unavailable

CHUNK = 1024 * 1024
"""Bytes in one chunk: what a nats-server takes in one message by default (`max_payload`)."""

_ENVELOPE = 4096
"""Bytes kept free in a message for its subject and headers."""

_SHARE = WINDOW // 3
"""Chunks of one content in transit. Contents after a large one must not wait for all of it."""

_AHEAD = 2
"""Chunks of a content that are fetched ahead of the one that is being sent to a client."""

SubjectOf = Callable[[int], str]
"""Gives the subject of a chunk by its number."""


def cut(connection: Connection, content: bytes | memoryview) -> list[memoryview]:
    """Cut a content into chunks that fit into a message, without a copy."""
    size, view = min(CHUNK, connection.max_payload - _ENVELOPE), memoryview(content)
    return [view[at : at + size] for at in range(0, len(view), size)]


async def store(
    connection: Connection, subject_of: SubjectOf, chunks: Sequence[bytes | memoryview]
) -> None:
    """Store chunks; return once all are safe. Raises what `Connection.store` does."""

    async def one(number: int) -> None:
        async with connection.sending:
            await connection.store(subject_of(number), chunks[number])

    await _each(len(chunks), one)


async def fetch(
    connection: Connection, stream: str, subject_of: SubjectOf, count: int
) -> list[bytes]:
    """Return `count` chunks. Raises `Unavailable`, also if a chunk is missing."""
    chunks = [b""] * count

    async def one(number: int) -> None:
        async with connection.fetching:
            chunks[number] = await _chunk(connection, stream, subject_of(number))

    await _each(count, one)
    return chunks


async def stream(
    connection: Connection, stream_name: str, subject_of: SubjectOf, count: int
) -> AsyncGenerator[bytes, None]:
    """Yield `count` chunks one after the other, with only a few in memory at a time.

    Raises as `fetch` does.
    """

    async def one(number: int) -> bytes:
        async with connection.fetching:
            return await _chunk(connection, stream_name, subject_of(number))

    coming = deque[asyncio.Task[bytes]]()
    try:
        for number in range(count + _AHEAD):
            if number < count:
                coming.append(asyncio.create_task(one(number)))
            if number >= _AHEAD:
                yield await coming.popleft()
    finally:
        for task in coming:
            task.cancel()


async def _chunk(connection: Connection, stream: str, subject: str) -> bytes:
    record = await connection.fetch(stream, subject, large=True)
    if record is None:
        # A follower may lag behind the leader.
        record = await connection.last(stream, subject)
    if record is None:
        raise Unavailable(f"{subject} is gone")
    return record.data


async def _each(count: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Run `work` for each number in order, `_SHARE` at a time; stop at the first error."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    workers = [asyncio.create_task(worker()) for _ in range(min(count, _SHARE))]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
