"""`flower-nats status`: the state of a runtime on a data directory, or behind some NATS servers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from flower_nats.broker.urls import without_login
from flower_nats.logs import configure_logs
from flower_nats.model.errors import ApiError
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.datadir import DataDir, RunningState
from flower_nats_cli.run_status import run_lines
from flower_nats_cli.runtime_client import runtime_client
from flower_nats_cli.status_text import status_lines
from flower_nats_cli.which_runtime import servers_given, servers_of

_PATIENCE_SECONDS = 5.0

Report = dict[str, Any]


@click.command()
@opts.data_dir_option
@opts.status_nats_options
@click.option(
    "--run",
    type=click.IntRange(0, 2**64 - 1),
    metavar="RUN_ID",
    help=(
        "Show the progress of this run: the state of each node's message, and what the run "
        "waits for."
    ),
)
@opts.format_option
@click.pass_context
def status(context: click.Context, /, **options: Any) -> None:
    """Show runs, nodes, SuperExecs, replicas, the health of broker and database, and what is durable.

    The runtime is that of `flower-nats up` on --data-dir, or the one on the NATS servers of --nats.
    Exit code 0 means that it is healthy; with --run, that the command found the run.
    """
    nats = servers_given(context, options)
    # The answer tells more than the client's log about a broker that is away.
    configure_logs(LogSettings(level="error"))
    if options["run"] is not None:
        _show_run(options, nats)
        return
    report = asyncio.run(_report_behind(*nats) if nats else _report(DataDir(options["data_dir"])))
    if options["format"] == "json":
        click.echo(json.dumps(report, indent=2, default=str))
    else:
        click.echo("\n".join(status_lines(report)))
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


async def _ask_about_run(nats: Sequence[str], ca_certificate: Path | None, run_id: int) -> Report:
    async with runtime_client(nats, ca_certificate) as client:
        return await client.ask("RunReport", _PATIENCE_SECONDS, run_id=run_id)


async def _report_behind(nats: Sequence[str], ca_certificate: Path | None) -> Report:
    servers = [without_login(url) for url in nats]
    report: Report = {"healthy": False, "nats": servers, "broker": {"healthy": False}}
    report |= await _ask(nats, ca_certificate)
    if "problems" in report:
        return report
    if not report["broker"]["healthy"]:
        remedy = (
            "check that a NATS server runs there, and that --nats has the right user and password"
        )
    else:
        remedy = (
            "start a superlink with the same --nats. If one runs, its log says what is missing: "
            "without PostgreSQL no superlink starts"
        )
    return {**report, "problems": [f"{report['unanswered']}. Remedy: {remedy}."]}


async def _report(data: DataDir) -> Report:
    state = data.state()
    if state is None:
        return _report_without_runtime(data)
    report = {**_describe(data, state), **await _ask(state.nats, None)}
    report["replicas"] = [_named(one, report, state) for one in report.get("replicas", ())]
    return {**report, **_with_missing(report)}


def _report_without_runtime(data: DataDir) -> Report:
    owner = data.owner()
    if owner is not None:
        state = "starting or ending"
    elif data.has_crashed():
        state = "crashed"
    else:
        state = "stopped" if data.was_used() else "never started"
    return {
        "healthy": False,
        "state": state,
        "pid": None if owner is None else owner.pid,
        "data_dir": str(data.path),
    }


async def _ask(nats: Sequence[str], ca_certificate: Path | None) -> Report:
    """Return what broker and superlinks answer; `unanswered` says why no superlink does."""
    report: Report = {"broker": {"healthy": False}}
    try:
        async with runtime_client(nats, ca_certificate) as client:
            report["broker"] = {"healthy": True, "version": client.broker_version()}
            answer = await client.ask("Status", _PATIENCE_SECONDS)
    except ApiError as exc:
        reason = (
            f"no superlink answers ({exc.detail})" if report["broker"]["healthy"] else exc.detail
        )
        return {**report, "unanswered": reason}
    report["broker"]["healthy"] = not answer["not_stored"]
    return {**report, **answer, "healthy": not answer["problems"]}


def _describe(data: DataDir, state: RunningState) -> Report:
    return {
        "healthy": False,
        "state": "running",
        "pid": state.pid,
        "data_dir": str(data.path),
        "ready_since": state.started_at,
        "addresses": state.addresses,
        "for_others": state.for_others,
        "warnings": list(state.warnings),
        "http_health": state.http_health_addresses,
        "console": state.console_address,
        "processes": data.processes(),
    }


def _with_missing(report: Report) -> Report:
    """Return the problems of a runtime on this machine, first the processes that do not run."""
    missing = [name for name, pid in report["processes"].items() if pid is None]
    found: list[str] = list(report.get("problems", ()))
    if missing:
        logs = ", ".join(str(Path(report["data_dir"]) / "logs" / f"{one}.log") for one in missing)
        found.insert(
            0,
            f"{' and '.join(missing)} {'does' if len(missing) == 1 else 'do'} not run. "
            f"`flower-nats up` tries to start the process again; {logs} says why it ended.",
        )
    elif "unanswered" in report:
        logs = str(Path(report["data_dir"]) / "logs")
        found.append(f"{report['unanswered']}. Remedy: the logs in {logs} say what is missing.")
    return {"problems": found, "healthy": not found}


def _named(replica: Report, report: Report, state: RunningState) -> Report:
    """Return a replica with the name of its process, if it is one of ours."""
    names = {pid: name for name, pid in report["processes"].items() if pid is not None}
    # `flower-nats local` has superlink and gateway in its own process.
    names[state.pid] = {"superexec": "superexec"}.get(replica["kind"], f"{replica['kind']}-1")
    name = names.get(replica.get("pid")) if replica.get("host") == socket.gethostname() else None
    return {**replica, "name": name or ""}
