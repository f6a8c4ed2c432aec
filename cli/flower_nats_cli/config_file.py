"""The `--config` file: a TOML table for each command, with the command's options by name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

Defaults = dict[str, Any]
"""Values by option; for a group of commands, by command."""


def defaults_in(path: Path, ctx: click.Context, group: click.Group) -> dict[str, Defaults]:
    """Return a file's values for the commands of a group, in click's form for defaults.

    Raises BadParameter for a file that is not TOML, and for tables and keys that name nothing.
    """
    return {name: _defaults(ctx, group, name, table) for name, table in _read(path).items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise click.BadParameter(f"{path} is not UTF-8 text, so it is not TOML.") from exc
    except tomllib.TOMLDecodeError as exc:
        raise click.BadParameter(f"{path} is not TOML: {exc}") from exc


def _defaults(ctx: click.Context, group: click.Group, name: str, table: object) -> Defaults:
    command = group.get_command(ctx, name)
    if command is None or not isinstance(table, Mapping):
        known = ", ".join(f"[{command}]" for command in group.list_commands(ctx))
        raise click.BadParameter(
            f"{name!r} is not the table of a command. The tables are: {known}."
        )
    parameters = _parameters(command)
    defaults: Defaults = {}
    for key, value in table.items():
        option = key.replace("_", "-")
        if option not in parameters:
            raise click.BadParameter(
                f"{key!r} in [{name}] is not an option; `flower-nats {name} --help` shows them."
            )
        parameter = parameters[option]
        repeated = parameter.multiple and isinstance(value, list)
        values = value if repeated else [value]
        if not all(isinstance(one, str | int | float) for one in values):
            raise click.BadParameter(
                f"{key!r} in [{name}] is not a single value. Write several URLs as one string, "
                "separated by commas."
            )
        # Each option reads text, which is what the command line gives.
        texts = [str(one) for one in values]
        defaults[str(parameter.name)] = texts if parameter.multiple else texts[0]
    return _for_each(command, defaults)


def _for_each(command: click.Command, defaults: Defaults) -> Defaults:
    """Return the defaults in click's form: the values of a group apply to each of its commands."""
    if not isinstance(command, click.Group):
        return defaults
    return {name: _for_each(member, defaults) for name, member in command.commands.items()}


def _parameters(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command, or of all commands of a group, as `_of` does."""
    if not isinstance(command, click.Group):
        return _of(command)
    members = command.commands.values()
    return {key: one for member in members for key, one in _parameters(member).items()}


def _of(command: click.Command) -> dict[str, click.Option]:
    """Return a command's options, by their flags without dashes."""
    return {
        flag.lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in parameter.opts
    }
