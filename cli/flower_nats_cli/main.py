"""The `flower-nats` command."""

from __future__ import annotations

import errno
import math
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from flower_nats.model.errors import FlowerNatsError
from flower_nats_cli.config_file import defaults_in
from flower_nats_cli.environment import PREFIX, warn_of_strangers


def _say_what_is_valid(kind: type[click.IntRange | click.FloatRange], noun: str) -> None:
    """Have click say "'two' is not a whole number from 1 to 32", not "a valid integer range"."""
    convert = kind.convert

    def convert_or_say(
        self: click.IntRange | click.FloatRange,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        try:
            found = convert(self, value, param, ctx)  # type: ignore[arg-type]
            # Click compares only the ends of the range, and no comparison refuses NaN.
            if isinstance(found, float) and math.isnan(found):
                raise click.BadParameter("it is no number")
            return found
        except click.BadParameter as exc:
            least, most = self.min, self.max
            if least is not None and most is not None:
                valid = f"{noun} from {least} to {most}"
            elif least is not None:
                valid = f"{noun} of {least} or more"
            else:
                valid = noun
            raise click.BadParameter(f"{str(value)!r} is not a {valid}.", ctx, param) from exc

    setattr(kind, "name", noun)  # noqa: B010
    setattr(kind, "convert", convert_or_say)  # noqa: B010


_say_what_is_valid(click.IntRange, "whole number")
_say_what_is_valid(click.FloatRange, "number")

_COMMANDS = (
    "account",
    "app",
    "audit",
    "backup",
    "connect",
    "console",
    "demo",
    "down",
    "gateway",
    "local",
    "migrate",
    "node",
    "quota",
    "restore",
    "role",
    "run",
    "status",
    "superlink",
    "up",
    "webhook",
)
"""Each command is in the module of its name. Only the command that runs is imported, so that a
restarted replica is ready sooner."""


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a full disk, and of a user who may store no more on it."""


class _Group(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command that the command line names."""
        _open_standard_streams()
        try:
            return super().main(*args, **kwargs)
        except OSError as exc:
            if exc.filename is not None or exc.errno not in _NO_ROOM:
                raise
            remedy = "Remedy: make room where the output and the data go."
            click.echo(f"Error: {exc.strerror}. {remedy}", err=True)
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            command: click.Command = getattr(import_module(f"flower_nats_cli.{cmd_name}"), cmd_name)
            for option in command.params:
                if isinstance(option, click.Option):
                    option.show_envvar = True
            self.add_command(command)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Warn of misspelt variables before click reports a missing option."""
        if args[0] not in _COMMANDS:
            close = get_close_matches(args[0], _COMMANDS, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            warn_of_strangers(command)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. An error is printed as a sentence, not as a traceback."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as exc:
            if exc.option_name == "--config":
                raise click.UsageError(
                    "--config comes before the command: flower-nats --config FILE COMMAND.", exc.ctx
                ) from exc
            raise
        except FlowerNatsError as exc:
            raise click.ClickException(str(exc)) from exc
        except OSError as exc:
            if exc.filename is None:
                raise
            # Such as a full disk, or a directory in place of a file: no error of ours.
            raise click.ClickException(f"{exc.filename}: {exc.strerror}.") from exc


def _open_standard_streams() -> None:
    """Open `/dev/null` in place of each standard stream that the caller has closed.

    Daemons and cron wrappers close them. Python then has None in the place of a closed stream. The
    next file that is opened would get the stream's number, and what is written to the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The system gives a new descriptor the lowest free number. Our children inherit it.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        ctx.default_map = defaults_in(path, ctx, main)


@click.group(
    cls=_Group,
    context_settings={
        "auto_envvar_prefix": PREFIX,
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        # Otherwise click breaks names of variables in two.
        "max_content_width": 120,
    },
)
# No setting: container images often set FLOWER_NATS_VERSION to their own version.
@click.version_option(None, "-V", "--version", package_name="flower-nats", allow_from_autoenv=False)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_read_config,
    expose_value=False,
    is_eager=True,
    show_envvar=True,
    help=(
        "TOML file with a table for each command, such as [up]. Write options without leading "
        "dashes."
    ),
)
def main() -> None:
    """Run federations of Flower on NATS and PostgreSQL.

    Each option can be given as a flag, as an environment variable FLOWER_NATS_<COMMAND>_<OPTION>
    (such as FLOWER_NATS_UP_DATA_DIR), or in the --config file. The first of these wins.
    """


if __name__ == "__main__":
    main(prog_name="flower-nats")
