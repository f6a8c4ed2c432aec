"""What `flower-nats status` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from flower_nats.model.certificates import days_left
from flower_nats.model.visible import visible_name
from flower_nats_cli.datadir import never_started
from flower_nats_cli.exposure import in_words
from flower_nats_cli.table import table
from flower_nats_cli.times import age, ago, duration

Map = Mapping[str, Any]

_SHOWN = 20
"""Nodes that are shown; `--format json` has up to a thousand."""

_TASKS = {"flwr-serverapp": "ServerApp", "flwr-simulation": "simulation"}


def status_lines(report: Map) -> Iterator[str]:
    """Describe the state of a runtime."""
    if "nats" in report:
        yield from _headline(", ".join(report["nats"]), report)
    elif report["state"] == "running":
        yield from _headline(f"{report['data_dir']} (pid {report['pid']})", report)
        yield from _local_lines(report)
    else:
        yield from _down_lines(report)
        return
    yield from _answer_lines(report)


def _headline(runtime: str, report: Map) -> Iterator[str]:
    if report["healthy"]:
        yield f"flower-nats on {runtime} is healthy"
        return
    problems = report["problems"]
    if len(problems) == 1:
        yield f"flower-nats on {runtime} is NOT HEALTHY: {problems[0]}"
        return
    yield f"flower-nats on {runtime} is NOT HEALTHY:"
    for problem in problems:
        yield f"  - {problem}"


def _down_lines(report: Map) -> Iterator[str]:
    """Say that there is no runtime on the data directory, or none yet."""
    state = report["state"]
    if state == "never started":
        yield never_started(report["data_dir"])
        yield "For a runtime that was started without `flower-nats up`, use --nats."
    elif state == "crashed":
        yield (
            f"flower-nats on {report['data_dir']} has CRASHED: its `flower-nats up` was killed, "
            "or the machine went down. None of its processes runs."
        )
        yield "Remedy: start `flower-nats up` again. No run is lost."
    else:
        by = f" (pid {report['pid']})" if report["pid"] else ""
        yield f"flower-nats on {report['data_dir']} is {state}{by}."


def _local_lines(report: Map) -> Iterator[str]:
    """Describe what runs on this machine."""
    yield f"  ready since  {report['ready_since']}"
    yield f"  addresses    {_pairs(report['addresses'])}"
    yield f"  for others   {in_words(report['for_others'])}"
    if report["console"]:
        yield f"  console      http://{report['console']}"
    if report["http_health"]:
        yield f"  health       {_pairs(report['http_health'])}"
    yield f"  processes    {_processes(report['processes'])}"


def _answer_lines(report: Map) -> Iterator[str]:
    """Describe the answers of the broker and a superlink."""
    for warning in report.get("warnings", ()):
        yield from wrap(warning, 100, initial_indent="  WARNING      ", subsequent_indent=" " * 15)
    yield f"  broker       {_server(report['broker'])}"
    yield f"  database     {_database(report)}"
    if "runs" in report:
        yield f"  runs         {_pairs(report['runs']) or 'none'}"
        yield f"  nodes        {_pairs(report['nodes']) or 'none'}"
        for replica in report["replicas"]:
            yield f"  replica      {_replica(report, replica)}"
    for certificate in report.get("certificates", ()):
        yield f"  certificate  {_certificate(certificate)}"
    if clients := report.get("clients"):
        yield f"  clients      {', '.join(map(_client, clients))}"
    yield from room_lines(report.get("room", {}))
    if lost := report.get("streams_lost"):
        yield f"  LOST         {lost} streams of the broker were lost and made again"
    if report.get("durability"):
        yield from durability_lines(report["durability"])
    if "runs" in report:
        yield from _superexec_lines(report)
        yield from _node_lines(report)


def _database(report: Map) -> str:
    # Only superlinks ask the database. If none has answered, its state is not known.
    if "database" not in report:
        return "not heard of"
    return "healthy" if report["database"]["healthy"] else "DOES NOT ANSWER"


def _replica(report: Map, replica: Map) -> str:
    named = f"{replica['name']}  " if replica.get("name") else f"{replica['kind']}  "
    where = f", {replica['host']} pid {replica['pid']}" if "pid" in replica else ""
    version = f", version {replica['version']}" if "version" in replica else ""
    return f"{named}for {age(report['now'], replica['since'])}{where}{version} ({replica['id']})"


def _certificate(certificate: Map) -> str:
    left = days_left(certificate)
    word = f"for {left:.0f} days more" if left >= 0 else "HAS EXPIRED"
    return f"of {certificate['of']}: until {certificate['expires_at'][:10]}, {word}"


def _client(one: Map) -> str:
    return f"{one['count']} {one['client']} {visible_name(one['version']) or 'of unknown version'}"


def _superexec_lines(report: Map) -> Iterator[str]:
    rows = [_superexec(report, one) for one in report["superexecs"]]
    if rows:
        yield ""
        yield from table(["SUPEREXEC", "FLWR", "HEARD", "DOES"], rows)


def _superexec(report: Map, superexec: Map) -> list[str]:
    seconds = superexec["heard_seconds_ago"]
    machine = visible_name(superexec["machine"])
    where = visible_name(superexec["address"]) or "address not known"
    return [
        f"{where} ({machine} pid {superexec['pid']})" if machine else where,
        visible_name(superexec["flwr"]) or "-",
        "not yet" if seconds is None else f"{duration(seconds)} ago",
        _does(report, superexec),
    ]


def _does(report: Map, superexec: Map) -> str:
    if superexec["refused"]:
        return f"IS REFUSED: {visible_name(superexec['refused'])}"
    tasks = [
        f"{_TASKS.get(task['type'], task['type'])} of run {task['run_id']} "
        f"({task['status']} for {age(report['now'], task['since'])})"
        for task in superexec["tasks"]
    ]
    return ", ".join(tasks) or ("starts" if superexec["heard_seconds_ago"] is None else "waits")


def _node_lines(report: Map) -> Iterator[str]:
    nodes: Sequence[Map] = report["nodes_listed"]
    if not nodes:
        return
    yield ""
    rows = [_node(report, one) for one in nodes[:_SHOWN]]
    yield from table(["NODE", "NAME", "FLWR", "ADDRESS", "IS", "HEARD", "DOES"], rows)
    if len(nodes) > _SHOWN:
        yield f"  and more: --format json shows {len(nodes)}"


def _node(report: Map, node: Map) -> list[str]:
    works = [f"run {run_id}" for run_id in node["runs"]]
    return [
        node["node_id"],
        visible_name(node["name"]) or "-",
        visible_name(node["flwr"]) or "-",
        visible_name(node["address"]) or "-",
        "not back yet" if node["status"] == "online" and node["is_unheard"] else node["status"],
        ago(report["now"], node["heard_at"]) if node["heard_at"] else "-",
        f"has messages of {', '.join(works)}" if works else "-",
    ]


def room_lines(rooms: Mapping[str, Map]) -> Iterator[str]:
    """Say how much room is left in each place, and how long it will last."""
    for place, room in rooms.items():
        hours = room["hours_left"]
        soon = (
            ""
            if hours is None
            else f", full in about {hours:.0f} hours at the rate of the last hour"
        )
        low = "LOW: " if room["is_low"] else ""
        yield f"  room         {place}: {low}{_bytes(room['free'])} of {_bytes(room['size'])} free{soon}"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit in ("B", "kB") else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _processes(processes: Mapping[str, int | None]) -> str:
    return ", ".join(
        f"{name} {'IS NOT RUNNING' if pid is None else pid}" for name, pid in processes.items()
    )


def durability_lines(promises: Map) -> Iterator[str]:
    """Say how safe acknowledged data is: on how many servers, synced or not.

    `promises` is the `durability` of a superlink's answer.
    """
    broker, database = promises["broker"], promises["database"]
    yield (
        f"  durability   broker: {broker['replicas']} cop{'y' if broker['replicas'] == 1 else 'ies'}"
        f" of every message, synced to disk {_synced(broker)}"
    )
    word = "synced to disk before a commit is acknowledged" if database["synced"] else "NOT SYNCED"
    yield (
        f"               database: {word} (fsync {_value(database['fsync'])}, "
        f"synchronous_commit {database['synchronous_commit']}), {_standbys(database)}"
    )


def _standbys(database: Map) -> str:
    number, synchronous = database["standbys"], database["synchronous_standbys"]
    word = f"{number} standby{'' if number == 1 else 's'}"
    if synchronous is None:
        return (
            f"{word}, UNKNOWN WHETHER SYNCHRONOUS: to see it, the database user of superlinks "
            "needs pg_read_all_stats"
        )
    return f"{word}, {synchronous} of them synchronous" if number else word


def _synced(broker: Map) -> str:
    if broker["sync"] == "always":
        return "before it is acknowledged (sync_interval always)"
    servers = _pairs(broker["servers"])
    if broker["sync"] == "unknown":
        return f"before it is acknowledged? UNKNOWN: NOT EVERY SERVER ANSWERED ({servers})"
    return f"AFTER IT IS ACKNOWLEDGED (sync_interval: {servers})"


def _server(server: Map) -> str:
    details = {key: value for key, value in server.items() if key != "healthy"}
    word = "healthy" if server["healthy"] else "does not answer"
    if not server["healthy"] and details:
        word = "DOES NOT STORE"
    return f"{word}, {_pairs(details)}" if details else word


def _pairs(values: Map) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
