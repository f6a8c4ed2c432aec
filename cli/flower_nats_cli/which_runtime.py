"""The runtime that a command is about: of a data directory, or behind some NATS servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from flower_nats_cli import settings_from_options as read
from flower_nats_cli.datadir import DataDir, never_started

Servers = tuple[Sequence[str], Path | None]
"""URLs of NATS servers, and their CA certificate."""


def not_running(data: DataDir) -> str:
    """Return the message for a directory on which no runtime runs."""
    if not data.was_used():
        otherwise = "For a runtime that was started without `flower-nats up`, use --nats."
        return f"{never_started(data.path)} {otherwise}"
    return f"No runtime runs on {data.path}. Remedy: start it with `flower-nats up`."


def servers_given(context: click.Context, options: read.Options) -> Servers | None:
    """Return the NATS servers that the options name; None for a data directory."""
    if options["nats"] is None and options["nats_file"] is None:
        if options["nats_ca_certfile"] is not None:
            raise click.UsageError("--nats-ca-certfile is for --nats or --nats-file.")
        return None
    nats = read.nats_servers(options)
    servers = nats, read.nats_ca_certificate(options, nats)
    if context.get_parameter_source("data_dir") is not ParameterSource.DEFAULT:
        raise click.UsageError(
            "--nats and --data-dir may name two runtimes. Remedy: leave one of them out; it may "
            "also come from its environment variable or the --config file."
        )
    return servers


def servers_of(options: read.Options) -> Servers:
    """Return the NATS servers of the runtime that runs on the data directory."""
    data = DataDir(options["data_dir"])
    state = data.state()
    if state is None:
        raise click.ClickException(not_running(data))
    return state.nats, None
