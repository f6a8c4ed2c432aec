"""Replicas of the runtime in the database, and since when heartbeats reach it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flower_nats.store.connection import Jsonb, Session
from flower_nats.store.nodes import DEAF_AFTER
from flower_nats.store.queries import load

_SQL = load("replicas")

_SEEN_WITHIN = 15
"""Seconds; a replica that was not seen for longer is not listed."""

_FORGET_AFTER = 3600
"""Seconds after which the row of a replica that is gone is removed."""


@dataclass(frozen=True)
class Replica:
    """A process of the runtime."""

    kind: str
    """`superlink`, `gateway`, or `superexec` for a host that runs one."""
    id: str
    since: datetime
    simulations: int | None
    """How many simulations the host of a SuperExec runs at a time."""
    about: Mapping[str, Any]
    """What it reports of itself: see `flower_nats.model.about`."""
    silent_seconds: float
    """Seconds since its last sign of life."""


class Replicas:
    """The processes of the runtime that are alive."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def announce(
        self,
        kind: str,
        replica_id: str,
        since: float,
        simulations: int | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> float:
        """Note a sign of life of a replica that was started at `since` (seconds since 1970).

        `simulations` is how many the host of a SuperExec runs at a time, `about` what a replica
        reports of itself. Returns for how many seconds a gateway was away, 0 if it was not. In that
        time the nodes and tasks that it was the last to hear could not be heard, so their deadlines
        are moved by as much.
        """
        row = await self._session.fetch_one(
            _SQL["announce"],
            kind=kind,
            id=replica_id,
            since=float(since),
            simulations=simulations,
            about=Jsonb(about or {}),
            deaf_after=DEAF_AFTER,
        )
        return 0.0 if row is None else float(row["away_seconds"])

    async def leave(self, kind: str, replica_id: str) -> None:
        """Forget a replica that ends."""
        await self._session.execute(_SQL["leave"], kind=kind, id=replica_id)

    async def heard(self) -> float:
        """Note that heartbeats reach the database; return for how long they did not.

        A gateway's announcement takes the same way as heartbeats: gateway, broker, superlink,
        database. If none has come for `DEAF_AFTER` seconds, for any reason, nothing expires until
        the next one. Then every deadline of a node or task is moved by the whole time.
        """
        row = await self._session.fetch_one(_SQL["heard"], deaf_after=DEAF_AFTER)
        return 0.0 if row is None else float(row["deaf_seconds"])

    async def heard_since(self) -> datetime | None:
        """Return when the last outage ended, None if there was none."""
        row = await self._session.fetch_one(_SQL["heard_since"])
        return None if row is None else row["heard_since"]

    async def is_heard(self) -> bool:
        """Return whether heartbeats have reached the database within `DEAF_AFTER` seconds."""
        row = await self._session.fetch_one(_SQL["is_heard"], deaf_after=DEAF_AFTER)
        return bool(row and row["is_heard"])

    async def alive(self) -> list[Replica]:
        """Return the replicas that were seen lately."""
        rows = await self._session.fetch_all(_SQL["list"], seconds=_SEEN_WITHIN)
        return [Replica(**row) for row in rows]

    async def note_lost(self, seconds: float) -> list[tuple[str, str]]:
        """Mark replicas not seen for `seconds` as lost; return the kind and id of each new one."""
        rows = await self._session.fetch_all(_SQL["note_lost"], seconds=seconds)
        return [(row["kind"], row["id"]) for row in rows]

    async def superexec_hosts(self) -> list[str]:
        """Return the hosts that run a SuperExec; silent ones may be out of reach."""
        return [row["id"] for row in await self._session.fetch_all(_SQL["superexec_hosts"])]

    async def drop_gone(self) -> int:
        """Remove the rows of replicas that are long gone; return how many."""
        return await self._session.execute(_SQL["drop_gone"], seconds=_FORGET_AFTER)
