"""Answers to calls: bytes, or a large object, which is read from the broker as its client takes
it."""

from collections.abc import AsyncGenerator
from io import BytesIO

from flower_nats.broker.objects import StoredObject
from flower_nats.wire.bulk import pull_object_response_head

LARGE = 24 * 1024 * 1024
"""Bytes from which an object is large: stock cuts arrays into objects of 20 MB, other records not."""


class LargeAnswer:
    """A serialized PullObjectResponse that is not in memory."""

    def __init__(self, stored: StoredObject) -> None:
        self._stored = stored
        self._head = pull_object_response_head(stored.size)

    def __len__(self) -> int:
        return len(self._head) + self._stored.size

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield it piece by piece. Raises `Unavailable`."""
        yield self._head
        async for piece in self._stored.stream():
            yield piece

    async def whole(self) -> bytes:
        """Return all of it. Raises `Unavailable`."""
        # Joined pieces would be in memory twice. A BytesIO gives its bytes away without a copy.
        content = BytesIO()
        async for piece in self.stream():
            content.write(piece)
        return content.getvalue()


Answer = bytes | LargeAnswer
"""A serialized response."""
