"""`flower-nats status`: how the runtime of a data directory is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from flower_nats.logs import configure_logs
from flower_nats.model.errors import ApiError
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli.datadir import DataDir, RunningState, never_started
from flower_nats_cli.runtime_status import status_client

_PATIENCE_SECONDS = 5.0


@click.command()
@opts.data_dir_option
@opts.format_option
def status(**options: Any) -> None:
    """Show runs, nodes, replicas, the health of broker and database, and what is durable.

    Exit code 0 means that the runtime is up and healthy.
    """
    # What the client logs about a broker that is gone is said better in the answer.
    configure_logs(LogSettings(level="error"))
    report = asyncio.run(_report(DataDir(options["data_dir"])))
    if options["format"] == "json":
        click.echo(json.dumps(report, indent=2, default=str))
    else:
        click.echo("\n".join(_lines(report)))
    if not report["healthy"]:
        raise click.exceptions.Exit(1)


async def _report(data: DataDir) -> dict[str, Any]:
    state = data.state()
    if state is None:
        owner = data.owner()
        stopped = "stopped" if data.was_used() else "never started"
        return {
            "healthy": False,
            "state": stopped if owner is None else "starting or ending",
            "pid": owner,
            "data_dir": str(data.path),
        }
    report = _describe(data, state)
    try:
        async with status_client(state.nats) as client:
            report["broker"] = {"healthy": True, "version": client.broker_version()}
            answer = await client.ask(_PATIENCE_SECONDS)
    except ApiError as exc:
        return {**report, "reason": exc.detail}
    return {**report, "healthy": True, "database": {"healthy": True}, **answer}


def _describe(data: DataDir, state: RunningState) -> dict[str, Any]:
    return {
        "healthy": False,
        "state": "running",
        "pid": state.pid,
        "data_dir": str(data.path),
        "ready_since": state.started_at,
        "addresses": {
            "serverappio": state.serverappio_api_address,
            "fleet": state.fleet_api_address,
            "control": state.control_api_address,
        },
        "http_health": state.http_health_addresses,
        "processes": data.processes(),
        "broker": {"healthy": False},
        # Superlinks read their answer from the database, so an answer shows that it is well.
        "database": {"healthy": False},
    }


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    if report["state"] == "never started":
        yield never_started(report["data_dir"])
        return
    if report["state"] != "running":
        by = f" (pid {report['pid']})" if report["pid"] else ""
        yield f"flower-nats on {report['data_dir']} is {report['state']}{by}."
        return
    health = "healthy" if report["healthy"] else f"NOT HEALTHY: {report['reason']}"
    yield f"flower-nats on {report['data_dir']} (pid {report['pid']}) is {health}"
    yield f"  ready since  {report['ready_since']}"
    yield f"  addresses    {_pairs(report['addresses'])}"
    if report["http_health"]:
        yield f"  health       {_pairs(report['http_health'])}"
    yield f"  processes    {_processes(report['processes'])}"
    yield f"  broker       {_server(report['broker'])}"
    yield f"  database     {_server(report['database'])}"
    if report["healthy"]:
        yield f"  runs         {_pairs(report['runs']) or 'none'}"
        yield f"  nodes        {_pairs(report['nodes']) or 'none'}"
        for replica in report["replicas"]:
            yield f"  replica      {replica['kind']} {replica['id']} since {replica['since']}"
        yield from durability_lines(report["durability"])


def _processes(processes: Mapping[str, int | None]) -> str:
    return ", ".join(
        f"{name} {'is not running' if pid is None else pid}" for name, pid in processes.items()
    )


def durability_lines(promises: Mapping[str, Any]) -> Iterator[str]:
    """Say what survives: what was acknowledged, on how many servers, synced or not.

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


def _standbys(database: Mapping[str, Any]) -> str:
    number, synchronous = database["standbys"], database["synchronous_standbys"]
    word = f"{number} standby{'' if number == 1 else 's'}"
    if synchronous is None:
        return f"{word}, SYNCHRONOUS OR NOT: our database user needs pg_read_all_stats to see"
    return f"{word}, {synchronous} of them synchronous" if number else word


def _synced(broker: Mapping[str, Any]) -> str:
    if broker["sync"] == "always":
        return "before it is acknowledged (sync_interval always)"
    servers = _pairs(broker["servers"])
    if broker["sync"] == "unknown":
        return f"before it is acknowledged or not: NOT EVERY SERVER WAS HEARD ({servers})"
    return f"LATER THAN ACKNOWLEDGED (sync_interval: {servers})"


def _server(server: Mapping[str, Any]) -> str:
    details = {key: value for key, value in server.items() if key != "healthy"}
    word = "healthy" if server["healthy"] else "does not answer"
    return f"{word}, {_pairs(details)}" if details else word


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
