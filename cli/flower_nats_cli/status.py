"""`flower-nats status`: how the runtime of a data directory is, or the one behind some NATS servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flower_nats.broker.urls import without_login
from flower_nats.logs import configure_logs
from flower_nats.model.errors import ApiError
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.datadir import DataDir, RunningState, never_started
from flower_nats_cli.exposure import in_words
from flower_nats_cli.run_status import run_lines
from flower_nats_cli.runtime_client import runtime_client
from flower_nats_cli.which_runtime import servers_given, servers_of

_PATIENCE_SECONDS = 5.0


@click.command()
@opts.data_dir_option
@opts.status_nats_options
@click.option(
    "--run",
    type=click.IntRange(0, 2**64 - 1),
    metavar="RUN_ID",
    help="Show how far this run has come: which nodes have its messages, and what it waits for.",
)
@opts.format_option
@click.pass_context
def status(context: click.Context, /, **options: Any) -> None:
    """Show runs, nodes, replicas, the health of broker and database, and what is durable.

    Of the runtime that `flower-nats up` has started on --data-dir, or of the one behind the NATS
    servers of --nats. Exit code 0 means that it is up and healthy; with --run, that there is an answer.
    """
    nats = servers_given(context, options)
    # What the client logs about a broker that is gone is said better in the answer.
    configure_logs(LogSettings(level="error"))
    if options["run"] is not None:
        _show_run(options, nats)
        return
    report = asyncio.run(_report_behind(*nats) if nats else _report(DataDir(options["data_dir"])))
    if options["format"] == "json":
        click.echo(json.dumps(report, indent=2, default=str))
    else:
        click.echo("\n".join(_lines(report)))
    if not report["healthy"]:
        raise click.exceptions.Exit(1)


def _show_run(options: read.Options, nats: tuple[Sequence[str], Path | None] | None) -> None:
    nats = nats or servers_of(options)
    try:
        report = asyncio.run(_ask_about_run(*nats, options["run"]))
    except ApiError as exc:
        raise click.ClickException(exc.detail) from exc
    if options["format"] == "json":
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo("\n".join(run_lines(report)))


async def _ask_about_run(
    nats: Sequence[str], ca_certificate: Path | None, run_id: int
) -> dict[str, Any]:
    async with runtime_client(nats, ca_certificate) as client:
        return await client.ask("RunReport", _PATIENCE_SECONDS, run_id=run_id)


async def _report_behind(nats: Sequence[str], ca_certificate: Path | None) -> dict[str, Any]:
    servers = [without_login(url) for url in nats]
    unheard = {"healthy": False}
    report = await _ask(
        nats,
        {"healthy": False, "nats": servers, "broker": unheard, "database": unheard},
        ca_certificate,
    )
    if report["healthy"] or "runs" in report:
        return report
    if report["broker"]["healthy"]:
        reason = f"no superlink answers: {report['reason']}"
        remedy = "start a superlink with the same --nats; its log says what one that runs may lack"
    else:
        reason = report["reason"]
        remedy = (
            "see that a NATS server runs there, and that --nats has the right user and password"
        )
    return {**report, "reason": f"{reason}. Remedy: {remedy}."}


async def _report(data: DataDir) -> dict[str, Any]:
    state = data.state()
    if state is None:
        owner = data.owner()
        stopped = "stopped" if data.was_used() else "never started"
        return {
            "healthy": False,
            "state": stopped if owner is None else "starting or ending",
            "pid": None if owner is None else owner.pid,
            "data_dir": str(data.path),
        }
    return await _ask(state.nats, _describe(data, state))


async def _ask(
    nats: Sequence[str], report: dict[str, Any], ca_certificate: Path | None = None
) -> dict[str, Any]:
    """Return `report` with what a superlink answers, or with the reason why none does."""
    try:
        async with runtime_client(nats, ca_certificate) as client:
            report["broker"] = {"healthy": True, "version": client.broker_version()}
            answer = await client.ask("Status", _PATIENCE_SECONDS)
    except ApiError as exc:
        return {**report, "reason": exc.detail}
    report = {**report, "healthy": True, "database": {"healthy": True}, **answer}
    # A superlink of an older version says nothing of it.
    if refusals := answer.get("not_stored"):
        report["broker"]["healthy"] = False
        reason = f"the broker does not store ({_pairs(refusals)})"
        return {
            **report,
            "healthy": False,
            "reason": f"{reason}. Remedy: see that its disks have room.",
        }
    return report


def _describe(data: DataDir, state: RunningState) -> dict[str, Any]:
    return {
        "healthy": False,
        "state": "running",
        "pid": state.pid,
        "data_dir": str(data.path),
        "ready_since": state.started_at,
        "addresses": state.addresses,
        "for_others": state.for_others,
        "http_health": state.http_health_addresses,
        "processes": data.processes(),
        "broker": {"healthy": False},
        # Members read their answer from the database, so an answer shows that it is well.
        "database": {"healthy": False},
    }


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    if "nats" in report:
        yield _headline(", ".join(report["nats"]), report)
    elif report["state"] == "running":
        yield _headline(f"{report['data_dir']} (pid {report['pid']})", report)
        yield from _local_lines(report)
    else:
        yield from _down_lines(report)
        return
    yield from _answer_lines(report)


def _headline(runtime: str, report: Mapping[str, Any]) -> str:
    health = "healthy" if report["healthy"] else f"NOT HEALTHY: {report['reason']}"
    return f"flower-nats on {runtime} is {health}"


def _down_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Say that there is no runtime on the data directory, or none yet."""
    if report["state"] == "never started":
        yield never_started(report["data_dir"])
        yield "A runtime that was started without `flower-nats up` is asked with --nats."
        return
    by = f" (pid {report['pid']})" if report["pid"] else ""
    yield f"flower-nats on {report['data_dir']} is {report['state']}{by}."


def _local_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Say what there is on this machine."""
    yield f"  ready since  {report['ready_since']}"
    yield f"  addresses    {_pairs(report['addresses'])}"
    yield f"  for others   {in_words(report['for_others'])}"
    if report["http_health"]:
        yield f"  health       {_pairs(report['http_health'])}"
    yield f"  processes    {_processes(report['processes'])}"


def _answer_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Say what the broker and a superlink have answered."""
    yield f"  broker       {_server(report['broker'])}"
    # It is asked by superlinks alone: what is wrong with it is not known where none has answered.
    yield f"  database     {'healthy' if report['database']['healthy'] else 'not heard of'}"
    if "runs" in report:
        yield f"  runs         {_pairs(report['runs']) or 'none'}"
        yield f"  nodes        {_pairs(report['nodes']) or 'none'}"
        for replica in report["replicas"]:
            yield f"  replica      {replica['kind']} {replica['id']} since {replica['since']}"
        yield from room_lines(report.get("room", {}))
        if lost := report.get("streams_lost"):
            yield f"  LOST         {lost} streams of the broker were gone and were made again"
        if report["durability"]:
            yield from durability_lines(report["durability"])


def room_lines(rooms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say how much room there is in each place, and how soon it ends."""
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
    if not server["healthy"] and details:
        word = "DOES NOT STORE"
    return f"{word}, {_pairs(details)}" if details else word


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
