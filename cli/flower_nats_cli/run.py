"""`flower-nats run delete`: delete finished runs with all their data."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from flower_nats.logs import configure_logs
from flower_nats.model.errors import ApiError
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli.runtime_client import runtime_client
from flower_nats_cli.which_runtime import Servers, servers_given, servers_of

_PATIENCE_SECONDS = 20.0
"""Seconds for a superlink to delete a run, whose log may be long."""


@click.command()
@click.argument("action", type=click.Choice(["delete"]))
@click.argument(
    "run_ids", type=click.IntRange(0, 2**64 - 1), nargs=-1, required=True, metavar="RUN_ID..."
)
@opts.data_dir_option
@opts.status_nats_options
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Delete finished runs.

    `flower-nats run delete RUN_ID...` deletes each run with its log, its tasks, and its app if no
    other run uses it. They cannot be recovered. Exit code 0 means that all are deleted.
    """
    servers = servers_given(context, options) or servers_of(options)
    configure_logs(LogSettings(level="error"))
    if not asyncio.run(_delete(servers, options["run_ids"])):
        raise click.exceptions.Exit(1)


async def _delete(servers: Servers, run_ids: Sequence[int]) -> bool:
    """Delete runs one after the other, and report each result."""
    nats, ca_certificate = servers
    all_gone = True
    async with runtime_client(nats, ca_certificate) as client:
        for run_id in dict.fromkeys(run_ids):
            try:
                await client.ask("DeleteRun", _PATIENCE_SECONDS, run_id=run_id)
            except ApiError as exc:
                all_gone = False
                click.echo(f"Error: {exc.detail}", err=True)
            else:
                click.echo(f"Run {run_id} is deleted.")
    return all_gone
