"""Connected SuperExecs and SuperNodes, and what each does now, for people to read."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flower_nats.broker.in_flight import InFlight
from flower_nats.store.nodes import NodeSign
from flower_nats.store.replicas import Replica
from flower_nats.store.tasks import TakenTask
from flower_nats.superlink.convert import iso

Map = Mapping[str, Any]

_SHOWN = ("host", "pid", "version")
"""The fields of a replica's own report that are shown."""

_STARTING_SECONDS = 30.0
"""Seconds that a SuperExec of `up` needs before its first call, because it loads flwr first."""


def replicas_there(replicas: Iterable[Replica]) -> list[Map]:
    """Describe the processes of the runtime."""
    return [
        {
            "kind": replica.kind,
            "id": replica.id,
            "since": iso(replica.since),
            **{
                name: replica.about[name]
                for name in ("host", "pid", "version")
                if name in replica.about
            },
        }
        for replica in replicas
    ]


def clients_there(
    replicas: Iterable[Replica], superexecs: Iterable[Map], of_nodes: Mapping[str, int]
) -> list[Map]:
    """Describe the versions of flwr that clients report: {client, version, count}.

    CLIs are counted by address, if they called in the last day. SuperNodes count if they are
    online.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for replica in replicas:
        for version, count in replica.about.get("clis", {}).items():
            # Gateways may have heard the same CLIs.
            counts["CLI", version] = max(counts["CLI", version], count)
    for version, count in of_nodes.items():
        counts["SuperNode", version] += count
    for one in superexecs:
        if not one["refused"]:
            counts["SuperExec", one["flwr"]] += 1
    return [
        {"client": client, "version": version, "count": count}
        for (client, version), count in sorted(counts.items())
    ]


def superexecs_there(
    replicas: Sequence[Replica], tasks: Sequence[TakenTask], now: float
) -> list[Map]:
    """Describe the SuperExecs that gateways have heard, with the tasks that each has taken.

    `now` is in seconds since 1970, to compute how long ago a host has started its SuperExec.
    """
    hosts = {one.id: one for one in replicas if one.kind == "superexec"}
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for gateway in replicas:
        for heard in gateway.about.get("superexecs", ()) if gateway.kind == "gateway" else ():
            seconds = round(heard["seconds"] + gateway.silent_seconds, 1)
            key = (heard["address"], heard["host"], bool(heard["refused"]))
            known = found.get(key)
            if known is None or seconds < known["heard_seconds_ago"]:
                found[key] = {
                    "address": heard["address"],
                    "flwr": heard["version"],
                    "host": heard["host"],
                    "refused": heard["refused"],
                    "heard_seconds_ago": seconds,
                }
    for host in hosts.values():
        is_heard = any(one["host"] == host.id for one in found.values())
        if not is_heard and now - host.since.timestamp() < _STARTING_SECONDS:
            found["", host.id, False] = _starting(host)
    for one in found.values():
        host_there = hosts.get(one["host"])
        one["machine"] = host_there.about.get("host", "") if host_there else ""
        one["pid"] = host_there.about.get("pid") if host_there else None
        one["simulations"] = host_there.simulations if host_there else None
        one["tasks"] = [_task(task) for task in tasks if _is_of(task, one)]
    return sorted(
        found.values(), key=lambda one: (bool(one["refused"]), one["heard_seconds_ago"] or 0)
    )


def nodes_there(nodes: Iterable[NodeSign], flights: Mapping[int, InFlight]) -> list[Map]:
    """Describe nodes, each with the runs that have messages in its hands or its mailbox."""
    runs: dict[int, set[int]] = {}
    for run_id, flight in flights.items():
        for key in flight.instructions.values():
            runs.setdefault(key.node_id, set()).add(run_id)
    return [
        {
            "node_id": str(node.node_id),
            "name": node.name or "",
            "location": node.location or "",
            "status": node.status,
            "is_unheard": node.is_unheard,
            "flwr": node.version,
            "address": node.address,
            "heard_at": iso(node.heard_at),
            "runs": [str(run_id) for run_id in sorted(runs.get(node.node_id, ()))],
        }
        for node in nodes
    ]


def _starting(host: Replica) -> dict[str, Any]:
    return {
        "address": "",
        "flwr": host.about.get("flwr", ""),
        "host": host.id,
        "refused": "",
        "heard_seconds_ago": None,
    }


def _is_of(task: TakenTask, superexec: Map) -> bool:
    if task.taken_by or superexec["host"]:
        return bool(task.taken_by == superexec["host"])
    return bool(task.taken_from == superexec["address"] and not superexec["refused"])


def _task(task: TakenTask) -> Map:
    return {
        "type": task.type,
        "run_id": str(task.run_id),
        "status": task.status,
        "since": iso(task.since),
    }
