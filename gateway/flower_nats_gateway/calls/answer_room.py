"""Large answers are sent as far as there is room for them.

A client may be slow to take its answer, and the gateway holds the answer until then.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

from flower_nats.model.errors import ApiError, ErrorCode

SHARE = 0.5
"""The share of the room that one address may have."""

PATIENCE = 20.0
"""Seconds for which an answer waits for room, before its caller gets UNAVAILABLE."""


class AnswerRoom:
    """Lets answers with a bounded sum of bytes leave at a time, in the order in which they come.

    Answers of an address that has its share wait, but do not delay others.
    """

    def __init__(self, room: int) -> None:
        """`room` is in bytes; a single answer may be larger."""
        self._room = room
        self._of: Counter[str] = Counter()
        self._waiting: list[_Waiting] = []
        self.size = 0
        """Bytes that are being sent."""

    async def enter(self, host: str, size: int) -> Callable[[], None]:
        """Wait for room; return a function to release it. Raises `ApiError` (OVERLOADED).

        `host` is the address of the client, empty for a client without a share.
        """
        one = _Waiting(host, size)
        self._waiting.append(one)
        self._admit()
        try:
            async with asyncio.timeout(PATIENCE):
                await one.turn
        except BaseException as exc:
            if one in self._waiting:
                self._waiting.remove(one)
                self._admit()
            else:
                self._leave(one)
            if not isinstance(exc, TimeoutError):
                raise
            reason = f"no room for an answer of {size} bytes within {PATIENCE:g} s"
            raise ApiError(ErrorCode.OVERLOADED, reason) from None
        return partial(self._leave, one)

    def _admit(self) -> None:
        for one in list(self._waiting):
            if self.size and self.size + one.size > self._room:
                break
            if self._has_its_share(one):
                continue
            self._waiting.remove(one)
            self.size += one.size
            self._of[one.host] += one.size
            # If a caller has just gone, the answer itself releases its room.
            if not one.turn.done():
                one.turn.set_result(None)

    def _has_its_share(self, one: "_Waiting") -> bool:
        of_host = self._of[one.host] if one.host else 0
        return bool(of_host) and of_host + one.size > self._room * SHARE

    def _leave(self, one: "_Waiting") -> None:
        self.size -= one.size
        self._of[one.host] -= one.size
        if not self._of[one.host]:
            del self._of[one.host]
        self._admit()


class _Waiting:
    """An answer that has not left yet."""

    def __init__(self, host: str, size: int) -> None:
        self.host = host
        self.size = size
        self.turn = asyncio.get_running_loop().create_future()
