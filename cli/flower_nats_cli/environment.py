"""Environment variables: ours, and what other processes get to see of them."""

from __future__ import annotations

import difflib
import os
import re

import click

PREFIX = "FLOWER_NATS"
"""Each option has a variable, `FLOWER_NATS_<COMMAND>_<OPTION>`."""


def without_ours() -> dict[str, str]:
    """Return the environment without our settings, for processes that we start.

    What is meant for one process would confuse another, and what we know of NATS and PostgreSQL,
    passwords in it, is nothing for the apps that a SuperExec runs.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(f"{PREFIX}_")}


# What Kubernetes tells of a service that is called, say, flower-nats-gateway.
_OF_AN_ORCHESTRATOR = re.compile(r"_(SERVICE_(HOST|PORT)|PORT)(_|$)")


def warn_of_strangers(command: click.Command) -> None:
    """Say on stderr which variables are named like options of this command, but none is called so."""
    if isinstance(command, click.Group):
        return
    prefix = f"{PREFIX}_{command.name}_".upper()
    known = [
        prefix + str(option.name).upper()
        for option in command.params
        if isinstance(option, click.Option) and option.allow_from_autoenv
    ]
    for name in sorted(os.environ):
        if not name.startswith(prefix) or name in known or _OF_AN_ORCHESTRATOR.search(name):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        click.echo(f"Warning: {name} is not a variable of an option.{meant}", err=True)
