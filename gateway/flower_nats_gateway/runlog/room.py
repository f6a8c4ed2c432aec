"""How much of logs is held for followers that have not taken it yet."""

from collections.abc import Iterator
from contextlib import contextmanager

from flower_nats.broker.runlog import BATCH_BYTES, RECORD_BYTES
from flower_nats.model.errors import ApiError, ErrorCode

WANTED_BYTES = "flower-nats-log-bytes"
"""What the log relay says of an answer: how many bytes there is room for."""

ANSWERS = 32 * 1024 * 1024
"""Bytes of first answers, in all."""

PIECE = RECORD_BYTES
"""Bytes of an answer that follows another one in its stream, and of the first where there is no room for
more. `flwr log --show`, which prints the first alone, then shows less than there is."""

FOLLOWERS = 256
"""Followers at once. Each may leave one or two pieces untaken, of which gRPC has a copy."""


class LogRoom:
    """Lets so many follow, and says how long the next answer of each may be."""

    def __init__(self) -> None:
        self._left = ANSWERS
        self._followers = 0

    @contextmanager
    def follower(self) -> Iterator[None]:
        """Count a follower. Raises `ApiError` (OVERLOADED) if it is one too many."""
        if self._followers >= FOLLOWERS:
            raise ApiError(ErrorCode.OVERLOADED, f"{self._followers} follow a log here")
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    @contextmanager
    def take(self, wanted: int) -> Iterator[int]:
        """Give the bytes that an answer may have; those of a long one are free again after it."""
        size = min(wanted, self._left // 4)
        if size <= PIECE:
            yield PIECE
            return
        self._left -= size
        try:
            yield size
        finally:
            self._left += size


def wanted_bytes(said: str) -> int:
    """Return how many bytes the first answer to a call may have, by what it says of that."""
    return min(BATCH_BYTES, int(said)) if said.isdecimal() and len(said) < 10 else BATCH_BYTES
