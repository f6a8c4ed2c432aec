"""How commands of operators ask a runtime, and show its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from flower_nats.logs import configure_logs
from flower_nats.model.errors import ApiError
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli.runtime_client import runtime_client
from flower_nats_cli.which_runtime import Servers, servers_given, servers_of

_PATIENCE_SECONDS = 10.0
"""Seconds for a superlink to answer."""


def runtime_options(command: opts.Command) -> opts.Command:
    """Give a command the options that name a runtime."""
    return opts.data_dir_option(opts.status_nats_options(command))


def ask(
    context: click.Context, options: dict[str, Any], question: str, **parameters: Any
) -> dict[str, Any]:
    """Ask the runtime that the options name. A refusal is printed as a sentence."""
    servers = servers_given(context, options) or servers_of(options)
    configure_logs(LogSettings(level="error"))
    try:
        return asyncio.run(_ask_at(servers, question, parameters))
    except ApiError as exc:
        raise click.ClickException(exc.detail) from exc


async def _ask_at(servers: Servers, question: str, parameters: dict[str, Any]) -> dict[str, Any]:
    async with runtime_client(*servers) as client:
        return await client.ask(question, _PATIENCE_SECONDS, **parameters)


def show(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    *,
    as_json: bool,
) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = [list(columns), *([text(row) for text in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())
