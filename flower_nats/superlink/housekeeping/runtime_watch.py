"""Notes when NATS, a NATS server or PostgreSQL goes away and comes back, and when room gets low.

Every superlink watches, because another one may be cut off. If several see the same, it is noted
once (`store/runtime_events.py`). While PostgreSQL is away, events wait here.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from flower_nats.broker.connection import Connection
from flower_nats.broker.servers import servers_there
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable
from flower_nats.store.connection import Database
from flower_nats.store.runtime_events import note
from flower_nats.superlink.housekeeping.room_watch import RoomWatch

log = get_logger(__name__)

_LOOK_EVERY = 1.0
"""Seconds between two looks."""

_OUTAGE = 3.0
"""Seconds after which an unusable server counts as away. In a cluster, another one takes over
sooner."""

_ASK_EVERY = 5.0
"""Seconds between two questions about the servers of a NATS cluster."""

_ASK_SECONDS = 2.0
"""Seconds for the answer. Without an answer, the last one stands."""

_MOST = 100
"""Events that may wait for the database. The oldest are dropped first."""


@dataclass(frozen=True)
class _Finding:
    """The present state of something."""

    subject: str
    bad: str
    """The kind of event at the beginning of a fault."""
    good: str
    """The kind of event at its end."""
    is_bad: bool
    name: str = ""
    details: str = ""
    patience: float = 0.0
    """Seconds that an outage must last to become an event."""


@dataclass(frozen=True)
class _Noted:
    """An event that waits to be stored."""

    kind: str
    finding: _Finding
    since: float
    """A moment of the monotonic clock."""
    after: str | None


class RuntimeWatch:
    """Watches the servers that a superlink needs."""

    def __init__(
        self, database: Database, connection: Connection, trials: StreamTrials, room: RoomWatch
    ) -> None:
        self._database = database
        self._connection = connection
        self._trials = trials
        self._room = room
        self._host = socket.gethostname()
        self._bad_since: dict[str, float] = {}
        self._told: dict[str, bool] = {}
        self._servers: dict[str, bool] = {}
        self._asked_at = float("-inf")
        self._waiting: deque[_Noted] = deque(maxlen=_MOST)

    async def run(self) -> None:
        """Watch, until cancelled."""
        while True:
            await self.ask_servers()
            self.look()
            await self.store()
            await asyncio.sleep(_LOOK_EVERY)

    async def ask_servers(self) -> None:
        """Ask regularly which servers of the NATS cluster are up."""
        if time.monotonic() - self._asked_at < _ASK_EVERY:
            return
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_ASK_SECONDS):
                self._servers = await servers_there(self._connection)
        self._asked_at = time.monotonic()

    def look(self) -> None:
        """Look once at everything."""
        now = time.monotonic()
        for one in self._findings(now):
            if not one.is_bad:
                self._bad_since.pop(one.subject, None)
                if self._told.get(one.subject) is not False:
                    self._told[one.subject] = False
                    # At the start, it may not have been noted that the server is back.
                    self._waiting.append(_Noted(one.good, one, now, after=one.bad))
                continue
            since = self._bad_since.setdefault(one.subject, now)
            if now - since >= one.patience and not self._told.get(one.subject):
                self._told[one.subject] = True
                self._waiting.append(_Noted(one.bad, one, since, after=None))

    def _findings(self, now: float) -> Iterator[_Finding]:
        reasons, is_connected = self._trials.reasons, self._connection.is_connected
        why = "" if is_connected else " It cannot be reached."
        if is_connected and reasons:
            why = f" It does not store: {', '.join(map(' '.join, reasons.items()))}."
        yield _Finding(
            "nats",
            "nats_away",
            "nats_back",
            bool(why),
            details=f"Seen from {self._host}.{why}",
            patience=_OUTAGE,
        )
        for server, is_there in self._servers.items():
            others = sum(self._servers.values())
            yield _Finding(
                f"nats server {server}",
                "nats_server_lost",
                "nats_server_back",
                not is_there,
                server,
                f"{others} of {len(self._servers)} servers are there; "
                f"{len(self._servers) // 2 + 1} are needed.",
            )
        away = self._database.away_since
        if away is not None:
            self._bad_since.setdefault("postgresql", away)
        yield _Finding(
            "postgresql",
            "postgresql_away",
            "postgresql_back",
            away is not None,
            details=f"Seen from {self._host}.",
            patience=_OUTAGE,
        )
        for place, room in self._room.report().items():
            name = f"{place} of {self._host}" if place == "disk" else place
            yield _Finding(
                f"room {name}",
                "room_low",
                "room_back",
                bool(room["is_low"]),
                name,
                f"{room['free'] / 1e9:.1f} of {room['size'] / 1e9:.1f} GB are free.",
            )

    async def store(self) -> None:
        """Store the waiting events; those that the database cannot take go on waiting."""
        while self._waiting and self._database.away_since is None:
            noted = self._waiting[0]
            one = noted.finding
            try:
                await note(
                    self._database,
                    noted.kind,
                    subject=one.subject,
                    name=one.name,
                    details=one.details.strip(),
                    age=time.monotonic() - noted.since,
                    after=noted.after,
                )
            except Unavailable as exc:
                log.warning("event_postponed", kind=noted.kind, reason=exc.detail)
                return
            self._waiting.popleft()
