"""Environment variables: ours, and those that other processes get."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping

import click

from flower_nats.embedded.process import private_directory
from flower_nats_cli.datadir import DataDir

PREFIX = "FLOWER_NATS"
"""Each option has a variable, `FLOWER_NATS_<COMMAND>_<OPTION>`."""


def without_ours() -> dict[str, str]:
    """Return the environment without our settings, for processes that we start.

    Settings of one process would confuse another. Apps that a SuperExec runs must not get our URLs
    of NATS and PostgreSQL, which hold passwords.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(f"{PREFIX}_")}


def without_proxy_to(host: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a process from calling us at `host` through a proxy.

    Other hosts in `variables` stay as they are.
    """
    said = [variables.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = [one.strip() for value in said for one in value.split(",") if one.strip()]
    both = ",".join(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1", host]))
    ours = {"no_proxy": both, "NO_PROXY": both}
    # If gRPC's variable is set, gRPC reads no other.
    if grpc := variables.get("no_grpc_proxy"):
        ours["no_grpc_proxy"] = f"{grpc},{both}"
    return ours


def flower_home(data: DataDir) -> dict[str, str]:
    """Return the variables by which Flower's programs, and apps, have a place for their files.

    By default that is the home of the user. A service may have no home, or may not write to it.
    """
    own = {}
    if not os.environ.get("FLWR_HOME"):
        own["FLWR_HOME"] = str(private_directory(data.flower))
    home = os.environ.get("HOME")
    if not home or not os.access(home, os.W_OK | os.X_OK):
        # For programs that install packages, and for libraries that keep a cache.
        own["HOME"] = str(private_directory(data.flower))
    return own


def _parameters(command: click.Command) -> list[click.Parameter]:
    """Return the parameters of a command, or of all commands of a group."""
    if isinstance(command, click.Group):
        return [one for member in command.commands.values() for one in member.params]
    return command.params


# Variables that Kubernetes sets for a service with a name such as flower-nats-gateway.
_OF_AN_ORCHESTRATOR = re.compile(r"_(SERVICE_(HOST|PORT)|PORT)(_|$)")


def warn_of_strangers(command: click.Command) -> None:
    """Warn on stderr of variables that look like an option of this command but match none."""
    if isinstance(command, click.Group):
        return
    prefix = f"{PREFIX}_{command.name}_".upper()
    known = [
        prefix + str(option.name).upper()
        for option in _parameters(command)
        if isinstance(option, click.Option) and (option.allow_from_autoenv or option.envvar)
    ]
    for name in sorted(os.environ):
        if not name.startswith(prefix) or name in known or _OF_AN_ORCHESTRATOR.search(name):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        click.echo(f"Warning: {name} is not a variable of an option.{meant}", err=True)
