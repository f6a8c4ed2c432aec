"""Which servers of a NATS cluster are up, as the leaders of our streams see them."""

from collections.abc import Mapping
from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection

NAMELESS = "Server name unknown"
"""The name that a server gives to a cluster member that is down and was never heard (2.15)."""

_SILENT = 5.0
"""Seconds after which a server that holds a stream counts as silent: servers are heard every
second."""


async def servers_there(connection: Connection) -> dict[str, bool]:
    """Return {name: whether it is up} of the servers of our streams; empty for a single server.

    Raises `Unavailable`.
    """
    there: dict[str, bool] = {}
    for stream in subjects.STREAMS:
        cluster = (await connection.info(stream)).get("cluster") or {}
        if leader := cluster.get("leader"):
            there.setdefault(leader, True)
        for peer in cluster.get("replicas") or ():
            if not peer["name"].startswith(NAMELESS):
                there[peer["name"]] = there.get(peer["name"], True) and not _is_silent(peer)
    return there if len(there) > 1 else {}


def _is_silent(peer: Mapping[str, Any]) -> bool:
    return bool(peer.get("offline")) or peer.get("active", 0) / 1e9 > _SILENT
