"""Proof that each stream of the broker stores: regularly, a small message in each.

A connection proves little. After a full disk, a server still takes connections and answers reads,
but refuses one stream, or all of JetStream, until it is restarted.
"""

import asyncio
import time
from contextlib import suppress

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection, NobodyListens
from flower_nats.health import Heard
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label
from flower_nats.model.errors import FlowerNatsError

log = get_logger(__name__)

STREAMS_LATELY = 15.0
"""Seconds within which each stream must have stored something for a process to be ready: an election
takes less."""

LOOK_EVERY = 3.0
"""Seconds between two looks at each stream."""

ATTEMPT = 2.0
"""Seconds that each of the two requests of a look may take; a healthy broker needs milliseconds."""

_SLACK = 0.5
"""Seconds that requests may exceed their limit before the whole check fails."""

_TELL_EVERY = 60.0
"""Seconds between two log lines while a stream does not store."""

_KEEPS_ALL = frozenset({subjects.LOGS_STREAM, subjects.BLOBS_STREAM})
"""Streams that would keep every trial. In the others a newer trial replaces the last."""


class StreamTrials:
    """Looks at each stream every few seconds, for as long as its process runs.

    A trial of another process since the last look is proof enough. So the broker stores about one
    trial per stream and look, however many processes look.
    """

    def __init__(self, connection: Connection, *, sweeps: bool = True) -> None:
        """`sweeps`: whether to remove old trials from streams that keep them. Gateways may not."""
        self._connection = connection
        self._sweeps = sweeps
        self._seen: dict[str, int] = {}
        self._stored = {stream: Heard(STREAMS_LATELY) for stream in subjects.STREAMS}
        self._told_at = float("-inf")
        self._failures: dict[str, Exception] = {}
        self._told: set[str] = set()
        self._looked = asyncio.Condition()

    def __call__(self) -> bool:
        """Whether each stream has stored something lately."""
        return all(heard() for heard in self._stored.values())

    @property
    def failures(self) -> dict[str, Exception]:
        """Streams that have stored nothing for a while, each with its last error."""
        return {stream: exc for stream, exc in self._failures.items() if not self._stored[stream]()}

    @property
    def reasons(self) -> dict[str, str]:
        """The same in words."""
        return {stream: str(exc) or "no answer" for stream, exc in self.failures.items()}

    async def reasons_after(self, seconds: float) -> dict[str, str]:
        """Wait until looks leave no `reasons`, for up to `seconds`; return those that remain."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._looked:
                await self._looked.wait_for(lambda: not self.reasons)
        return self.reasons

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Look at each stream once."""
        await asyncio.gather(*map(self._look_at, subjects.STREAMS))
        self._tell()
        async with self._looked:
            self._looked.notify_all()

    def metrics(self) -> list[Metric]:
        """Return as numbers which streams store."""
        stores = {stream: float(heard()) for stream, heard in self._stored.items()}
        meaning = "1 if this stream of the broker has stored a message lately."
        return [by_label("broker_stores", meaning, "stream", stores)]

    async def _look_at(self, stream: str) -> None:
        try:
            async with asyncio.timeout(2 * ATTEMPT + _SLACK):
                if not await self._was_tried(stream):
                    await self._try(stream)
                if self._sweeps and stream in _KEEPS_ALL:
                    await self._sweep(stream)
        except (FlowerNatsError, TimeoutError) as exc:
            self._failures[stream] = exc
        else:
            self._failures.pop(stream, None)
            self._stored[stream].note()

    async def _was_tried(self, stream: str) -> bool:
        """Whether another process has stored a trial since our last look."""
        subject = subjects.trial(stream)
        newest = await self._connection.last(stream, subject, patience=ATTEMPT)
        seen, found = self._seen.get(stream), newest.sequence if newest else None
        if seen is None or found is None or found == seen:
            return False
        self._seen[stream] = found
        return True

    async def _try(self, stream: str) -> None:
        subject = subjects.trial(stream)
        try:
            stored = await self._connection.store(subject, b"", patience=ATTEMPT, await_room=False)
        except NobodyListens:
            # A stream of an older version takes no trials. Its leader has just answered.
            return
        self._seen[stream] = stored.sequence

    async def _sweep(self, stream: str) -> None:
        newest = self._seen.get(stream, 0)
        if newest:
            with suppress(FlowerNatsError, TimeoutError):
                async with asyncio.timeout(ATTEMPT):
                    await self._connection.purge(stream, subjects.trial(stream), up_to=newest)

    def _tell(self) -> None:
        """Log a line when a fault begins, one a minute, and one when it ends."""
        reasons, now = self.reasons, time.monotonic()
        if not reasons and self._told:
            log.info("broker_stores_again", streams=sorted(self._told))
        elif reasons.keys() - self._told or (reasons and now - self._told_at > _TELL_EVERY):
            self._told_at = now
            log.error(
                "broker_does_not_store",
                streams=reasons,
                remedy=(
                    "Make room on the disks of the NATS servers. Then restart each server that "
                    "still refuses to store. `flower-nats up` does the restart by itself."
                ),
            )
        self._told = set(reasons)
