"""The commands of `flower-nats`."""

from __future__ import annotations

import click

from flower_nats_cli.main import main


def commands() -> dict[str, click.Command]:
    """All commands of `flower-nats`, by name."""
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}
