"""`flower-nats down`: end the runtime of a data directory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import click

from flower_nats.embedded.identity import ProcessIdentity
from flower_nats_cli import options as opts
from flower_nats_cli.datadir import DataDir, never_started

_LIMIT_SECONDS = 15.0
_POLL_SECONDS = 0.05


@click.command()
@opts.data_dir_option
def down(data_dir: Path) -> None:
    """End a `flower-nats up` and everything it started, in good order."""
    data = DataDir(data_dir)
    owner = data.owner()
    if owner is not None:
        _end(data, owner)
        click.echo(f"flower-nats (pid {owner}) has ended.")
        return
    leftovers = _end_leftovers(data)
    if leftovers:
        click.echo(f"Ended {leftovers} processes that a killed `flower-nats up` had left.")
    elif data.was_used():
        click.echo(f"Nothing runs on {data.path}.")
    else:
        click.echo(never_started(data.path))


def _end(data: DataDir, owner: int) -> None:
    process = ProcessIdentity.of(owner)
    with suppress(ProcessLookupError):
        os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + _LIMIT_SECONDS
    # It gives the directory free before it is gone itself.
    while data.owner() == owner or (process is not None and process.is_alive()):
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"flower-nats (pid {owner}) has not ended within {_LIMIT_SECONDS:.0f} s."
            )
        time.sleep(_POLL_SECONDS)


def _end_leftovers(data: DataDir) -> int:
    if not data.was_used():
        return 0
    with data.owned():
        return asyncio.run(data.end_leftovers())
