"""`flower-nats down`: end the runtime of a data directory."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flower_nats.embedded.identity import ProcessIdentity
from flower_nats.logs import configure_logs
from flower_nats.model.errors import ApiError, Unavailable
from flower_nats.model.states import CLOSED_SECONDS
from flower_nats.settings import LogSettings
from flower_nats_cli import options as opts
from flower_nats_cli.datadir import DataDir, never_started
from flower_nats_cli.runtime_client import RuntimeClient, runtime_client

_LIMIT_SECONDS = 15.0
_POLL_SECONDS = 0.05

_PATIENCE_SECONDS = 5.0
"""Seconds for a superlink to say which runs there are."""

_LOOK_EVERY = 1.0
"""Seconds between two looks at the unfinished runs."""


@click.command()
@opts.data_dir_option
@click.option(
    "--yes",
    is_flag=True,
    help="End it even if runs are under way: they end as failed, with the reason.",
)
@click.option(
    "--wait",
    is_flag=False,
    flag_value=math.inf,
    type=click.FloatRange(min=0),
    metavar="[SECONDS]",
    help=(
        "Let current runs end first, for at most this many seconds. Meanwhile new runs are "
        "refused. Default: as long as they take."
    ),
)
def down(data_dir: Path, yes: bool, wait: float | None) -> None:
    """Shut down a `flower-nats up` and everything that it started.

    If runs are under way, the command asks first.
    """
    data = DataDir(data_dir)
    owner = data.owner()
    if owner is not None:
        _see_to_runs(data, yes=yes, wait=wait)
        _end(data, owner)
        click.echo(f"flower-nats (pid {owner.pid}) has ended.")
        return
    leftovers = _end_leftovers(data)
    if leftovers:
        click.echo(f"Ended {leftovers} processes that a killed `flower-nats up` left behind.")
    elif data.was_used():
        click.echo(f"Nothing runs on {data.path}.")
    else:
        raise click.ClickException(never_started(data.path))


def _see_to_runs(data: DataDir, *, yes: bool, wait: float | None) -> None:
    """Let runs end, or ask the user whether they may be ended; raises ClickException if not."""
    state = data.state()
    if state is None:
        return
    configure_logs(LogSettings(level="error"))
    try:
        runs = asyncio.run(_wait(state.nats, wait) if wait is not None else _runs(state.nats))
    except Unavailable as exc:
        if wait is not None and not yes:
            raise click.ClickException(
                "the runtime does not say whether runs are under way, so nothing was ended. "
                "Remedy: use `flower-nats down` of the version that started the runtime; or "
                "leave out --wait, which ends the runtime in any case."
            ) from exc
        # A runtime that cannot answer is ended too: that may be why the user ends it.
        click.echo("The runtime does not say whether runs are under way.", err=True)
        return
    if runs and not yes:
        _ask(runs, waited=wait is not None)


def _ask(runs: Sequence[Mapping[str, str]], *, waited: bool) -> None:
    click.echo(f"{len(runs)} runs are under way:" if len(runs) > 1 else "A run is under way:")
    for run in runs:
        click.echo(f"  {run['run_id']}  {run['app']}  {run['status']} since {run['since']}")
    remedy = (
        "Runs that are running end as failed. Runs that are pending are kept, and start when "
        "the runtime is back."
    )
    if not sys.stdin.isatty():
        how = "" if waited else "--wait to let them end first, or "
        open_again = f" New runs are accepted again in {CLOSED_SECONDS:g} s." if waited else ""
        raise click.ClickException(
            f"nothing was ended.{open_again} Remedy: {how}--yes to end them. {remedy}"
        )
    click.echo(remedy)
    if not click.confirm("End the runtime?"):
        raise click.Abort


async def _runs(nats: Sequence[str]) -> list[dict[str, str]]:
    async with runtime_client(nats) as client:
        return await _unfinished(client)


async def _wait(nats: Sequence[str], seconds: float) -> list[dict[str, str]]:
    """Refuse new runs, and return the runs that have not ended after so many seconds."""
    deadline = time.monotonic() + seconds
    holder = uuid.uuid4().hex
    async with runtime_client(nats) as client:
        while True:
            await _patiently(client, "CloseToRuns", holder=holder)
            runs = await _unfinished(client)
            left = deadline - time.monotonic()
            if not runs or left <= 0:
                return runs
            await asyncio.sleep(min(_LOOK_EVERY, left))


async def _unfinished(client: RuntimeClient) -> list[dict[str, str]]:
    runs: list[dict[str, str]] = (await _patiently(client, "UnfinishedRuns"))["runs"]
    return runs


async def _patiently(client: RuntimeClient, question: str, **parameters: Any) -> dict[str, Any]:
    try:
        return await client.ask(question, _PATIENCE_SECONDS, **parameters)
    except Unavailable:
        raise
    except ApiError as exc:
        raise click.ClickException(exc.detail) from exc


def _end(data: DataDir, owner: ProcessIdentity) -> None:
    owner.signal(signal.SIGTERM)
    deadline = time.monotonic() + _LIMIT_SECONDS
    # `up` releases the directory shortly before its process ends.
    while data.owner() == owner or owner.is_alive():
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"flower-nats (pid {owner.pid}) has not ended within {_LIMIT_SECONDS:.0f} s."
            )
        time.sleep(_POLL_SECONDS)


def _end_leftovers(data: DataDir) -> int:
    if not data.was_used():
        return 0
    with data.owned():
        return asyncio.run(data.end_leftovers())
