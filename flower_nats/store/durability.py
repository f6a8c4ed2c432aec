"""What the database promises for acknowledged data."""

from typing import Any

from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("database")


async def durability(session: Session) -> dict[str, Any]:
    """Return the server's version and the settings that decide what a crash can destroy.

    `synced` says whether an acknowledged write survives a power cut of the server, `standbys` how
    many other servers follow it, and `synchronous_standbys` how many of those are synchronous: a
    commit waits for them, or for as many of them as `synchronous_standby_names` says. It is None if
    there are standbys but our role may not see their kind.
    """
    row = dict(await session.fetch_one(_SQL["durability"]) or {})
    row["synced"] = bool(row.get("fsync")) and row.get("synchronous_commit") != "off"
    return row
