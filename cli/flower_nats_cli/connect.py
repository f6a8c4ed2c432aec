"""`flower-nats connect`: write a runtime into the Flower config of `flwr`, with consent."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path
from typing import Any

import click

from flower_nats.model.errors import FlowerNatsError
from flower_nats_cli import options as opts
from flower_nats_cli.datadir import DataDir, RunningState, never_started
from flower_nats_cli.flower import connection_config, environment_for, find_program
from flower_nats_cli.flower_config import CannotEdit, flwr_home, with_connection
from flower_nats_cli.which_runtime import not_running

_FLWR_SECONDS = 30.0
"""Seconds for `flwr` to write its own default file."""


class ConnectError(FlowerNatsError):
    """The Flower config cannot be read or written."""


@click.command()
@opts.data_dir_option
@click.option(
    "--name",
    default="flower-nats",
    show_default=True,
    metavar="NAME",
    help="Name of the connection, for `flwr run APP NAME`.",
)
@click.option("--default", is_flag=True, help="Make it the default connection of `flwr`.")
@click.option("--yes", is_flag=True, help="Write without asking.")
def connect(data_dir: Path, name: str, *, default: bool, yes: bool) -> None:
    """Write the connection to this runtime into the Flower config, so that `flwr` finds it.

    The file is $FLWR_HOME/config.toml, or ~/.flwr/config.toml. The change is shown first, and nothing
    else in the file is touched.
    """
    _check_name(name)
    state = _running(data_dir)
    address, ca_certificate = state.connection
    lines = connection_config(name, address, Path(ca_certificate) if ca_certificate else None)
    path = flwr_home() / "config.toml"
    _let_flwr_begin(path)
    before = _read(path)
    try:
        after = with_connection(before, name, lines, as_default=default)
    except CannotEdit as exc:
        raise ConnectError(
            f"{path} {exc}. Nothing was written. Put this into it:\n\n{lines}"
        ) from exc
    if after == before:
        click.echo(f"{path} has this connection already.")
        return
    click.echo("".join(_difference(path, before, after)))
    if not yes and not _agreed(path):
        click.echo("Nothing was written.")
        raise click.exceptions.Exit(1)
    _write(path, after)
    click.echo(f"Wrote {path}. Run an app:  flwr run <app> {'' if default else name + ' '}--stream")


def _check_name(name: str) -> None:
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
        raise click.BadParameter(
            f"{name!r} may contain only letters, digits, - and _.", param_hint="--name"
        )
    if name == "default":
        raise click.BadParameter(
            "'default' has a special meaning for `flwr`. Choose another name.", param_hint="--name"
        )


def _running(data_dir: Path) -> RunningState:
    data = DataDir(data_dir)
    state = data.state()
    if state is None:
        if not data.was_used():
            raise ConnectError(never_started(data.path))
        raise ConnectError(not_running(data))
    if not state.connection[0]:
        raise ConnectError(
            "this runtime serves no Control API. Remedy: start it with --control-api-address."
        )
    return state


def _let_flwr_begin(path: Path) -> None:
    """Have `flwr`, if it is installed, create the file with its defaults; we add to them."""
    if path.exists():
        return
    with suppress(FlowerNatsError, OSError, subprocess.SubprocessError):
        program = find_program("flwr")
        subprocess.run(
            [str(program), "config", "list"],
            env=environment_for(program),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_FLWR_SECONDS,
            check=False,
        )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise ConnectError(f"{path} cannot be read: {exc}.") from exc


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, with the same permissions; a symbolic link stays a link."""
    target = path.resolve()
    fresh = target.with_name(f".{target.name}.flower-nats")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, "utf-8")
        if target.exists():
            fresh.chmod(target.stat().st_mode & 0o777)
        os.replace(fresh, target)
    except OSError as exc:
        with suppress(OSError):
            fresh.unlink()
        raise ConnectError(f"{path} cannot be written: {exc.strerror}.") from exc


def _difference(path: Path, before: str, after: str) -> Any:
    return unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), str(path)
    )


def _agreed(path: Path) -> bool:
    if not sys.stdin.isatty():
        click.echo("There is no terminal on which to ask. Remedy: add --yes.", err=True)
        return False
    return click.confirm(f"Write this to {path}?")
