"""What the broker promises for acknowledged messages, as its servers report it."""

from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.servers import NAMELESS
from flower_nats.broker.storage import server_figures

ALWAYS = "always"
"""The value for a server that syncs to disk before it acknowledges."""

UNKNOWN = "unknown"
"""The value for a server that was not heard."""


async def durability(connection: Connection) -> dict[str, Any]:
    """Return how safely the servers of the runtime's streams store messages.

    `replicas` is the number of servers that hold each message; `leader` is the one that takes
    messages in, empty for a single server or if none is elected. `servers` gives for each server,
    by name, how often it syncs to disk: `always`, an interval such as `120 s`, or `unknown` if it
    did not answer. A server does not answer if it is down, or if the system account does not export
    its settings to us. `sync` is the worst of these values: an interval, else `unknown`, else
    `always`. Raises `Unavailable`.
    """
    infos = [await connection.info(stream) for stream in subjects.STREAMS]
    copies = min(int(info["config"]["num_replicas"]) for info in infos)
    holders = set().union(*(_holders(info) for info in infos)) or {_own_name(connection)}
    if len(holders) < copies:
        holders.add(NAMELESS)
    heard = await _settings(connection, holders)
    servers = {name: heard.get(name, UNKNOWN) for name in sorted(holders)}
    return {
        "server_version": connection.server_info.get("version", UNKNOWN),
        "replicas": copies,
        "leader": (infos[0].get("cluster") or {}).get("leader") or "",
        "sync": max(servers.values(), key=_badness),
        "servers": servers,
    }


def _badness(sync: str) -> float:
    ranks = {ALWAYS: 0.0, UNKNOWN: 1.0}
    return ranks[sync] if sync in ranks else 2.0 + float(sync.removesuffix(" s"))


def _holders(info: dict[str, Any]) -> set[str]:
    """Return the named servers that hold a stream. A single server names none."""
    cluster = info.get("cluster") or {}
    names = [cluster.get("leader"), *(peer["name"] for peer in cluster.get("replicas") or ())]
    return {name for name in names if name and not name.startswith(NAMELESS)}


def _own_name(connection: Connection) -> str:
    return str(connection.server_info.get("server_name", UNKNOWN))


async def _settings(connection: Connection, wanted: set[str]) -> dict[str, str]:
    """Ask every server how it syncs, until all `wanted` have answered or a second is over."""
    figures = await server_figures(connection, wanted)
    return {name: _sync(jetstream.get("config", {})) for name, jetstream in figures.items()}


def _sync(config: dict[str, Any]) -> str:
    return ALWAYS if config.get("sync_always") else f"{config.get('sync_interval', 0) / 1e9:g} s"
