"""Log lines of runs that could not be stored at once, at whichever gateway.

While the stream of logs has no leader (a NATS server was killed), lines wait for seconds. In the
end they are refused, and their client sends them again. Stock ServerApps do not wait for that: they
push their output at most 3 s after their last lines, and end 3 s later. So the end of a run waits
for its lines, and so do followers of its log. Gateways tell each other by hints, which need no
leader. A silent gateway may have lines of any run, and so may one that must still ask for the run
of its lines.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.hints import Wakes
from flower_nats_gateway.calls.call import Drain
from flower_nats_gateway.cluster.liveness import GatewayLiveness

_T = TypeVar("_T")

_SAY_AFTER = 0.3
"""Seconds within which lines are normally stored: less than stock waits between the last lines and
the output."""

_SAY_AGAIN = 0.4
"""Seconds between two hints that lines still wait."""

_WAITING, _STORED, _REFUSED = b"waiting", b"stored", b"refused"

_COUNTS_FOR = {
    # After longer silence, the gateway is gone.
    _WAITING: 1.5,
    # Lines that the client has held back follow 0.2 s later (flwr 1.33 `common/logger.py`).
    _STORED: 1.0,
    # The client tries again within 20 s (flwr 1.33 `supercore/retry`).
    _REFUSED: 21.0,
}
"""Seconds for which further lines of a run are expected after lines had to wait."""

_ANY_RUN = 0
"""The id for lines of a run that is not known yet. No run has this id."""

_LONGEST = 30.0
"""Seconds for which the end of a run waits."""


class PendingLines:
    """The lines of all runs, at all gateways, that could not be stored at once."""

    def __init__(
        self, connection: Connection, wakes: Wakes, liveness: GatewayLiveness, drain: Drain
    ) -> None:
        self._connection = connection
        self._wakes = wakes
        self._liveness = liveness
        self._drain = drain
        self._in_hand: Counter[int] = Counter()
        """Lines at this gateway, by run, including those that will be stored at once."""
        self._said: dict[int, tuple[bytes, float]] = {}
        """The last hint for each run, and until when it counts."""

    async def until_known(self, asking: Awaitable[_T]) -> _T:
        """Await `asking`, which finds the run of lines; tell other gateways if it takes long."""
        with self._telling(_ANY_RUN):
            return await asking

    async def until_stored(self, run_id: int, append: Awaitable[_T]) -> _T:
        """Await `append`, which stores lines of a run; tell other gateways if it takes long."""
        self._in_hand[run_id] += 1
        try:
            with self._telling(run_id):
                result = await append
        except BaseException:
            await self._say(run_id, _REFUSED)
            raise
        else:
            if self._are_late(run_id):
                await self._say(run_id, _STORED)
            return result
        finally:
            self._in_hand[run_id] -= 1
            if not self._in_hand[run_id]:
                del self._in_hand[run_id]

    def are_waiting(self, run_id: int) -> bool:
        """Whether a gateway has lines of this run in hand, or may have."""
        return (
            run_id in self._in_hand
            or self._last_said(run_id) == _WAITING
            or self._last_said(_ANY_RUN) == _WAITING
            or bool(self._liveness.silent())
        )

    async def until_no_more(self, run_id: int) -> None:
        """Wait until no more lines of this run are expected, for at most half a minute.

        A gateway that drains does not wait.
        """
        deadline = time.monotonic() + _LONGEST
        with self._wakes.on(subjects.event_lines(run_id)) as wait:
            while self._expected(run_id) and not self._drain.begun:
                if time.monotonic() > deadline:
                    return
                wait.take()
                await wait.wait(_SAY_AFTER)

    def _expected(self, run_id: int) -> bool:
        return self.are_waiting(run_id) or bool(self._last_said(run_id))

    def _are_late(self, run_id: int) -> bool:
        """Whether lines of this run wait or were refused, or may have been."""
        said = {self._last_said(run_id), self._last_said(_ANY_RUN)}
        return not said.isdisjoint((_WAITING, _REFUSED))

    def _last_said(self, run_id: int) -> bytes:
        said, until = self._said.get(run_id, (b"", 0.0))
        return said if time.monotonic() < until else b""

    @contextmanager
    def _telling(self, run_id: int) -> Iterator[None]:
        saying = asyncio.create_task(self._say_waiting(run_id), name="pending_lines lines")
        try:
            yield
        finally:
            saying.cancel()

    async def _say_waiting(self, run_id: int) -> None:
        await asyncio.sleep(_SAY_AFTER)
        while True:
            await self._say(run_id, _WAITING)
            await asyncio.sleep(_SAY_AGAIN)

    async def _say(self, run_id: int, what: bytes) -> None:
        await self._connection.hint(subjects.event_lines(run_id), what)

    def note(self, run_id: int, payload: bytes) -> None:
        """Note the hint of a gateway about the state of a run's lines."""
        now = time.monotonic()
        self._said = {run: said for run, said in self._said.items() if said[1] > now}
        until = now + _COUNTS_FOR.get(payload, 0.0)
        self._said[run_id] = (payload, until)
