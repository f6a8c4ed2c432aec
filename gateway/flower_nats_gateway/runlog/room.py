"""Limits on the log bytes that are held for followers that have not taken them yet."""

from collections.abc import Iterator
from contextlib import contextmanager

from flower_nats.broker.runlog import BATCH_BYTES, RECORD_BYTES
from flower_nats.model.errors import ApiError, ErrorCode

WANTED_BYTES = "flower-nats-log-bytes"
"""The header with which the log relay limits an answer, in bytes."""

ANSWERS = 32 * 1024 * 1024
"""Bytes of first answers, in all."""

PIECE = RECORD_BYTES
"""Bytes of an answer that follows another one in its stream, and of the first answer if there is no
more room. `flwr log --show`, which prints only the first answer, then shows less."""

FOLLOWERS = 256
"""Followers at once. Each may leave one or two pieces untaken, and gRPC has a copy of these."""


class LogRoom:
    """Limits the followers, and the size of the next answer of each."""

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
        """Yield the size that an answer may have; a long answer's bytes are released after it."""
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
    """Return the size limit of a call's first answer, from its header."""
    return min(BATCH_BYTES, int(said)) if said.isdecimal() and len(said) < 10 else BATCH_BYTES
