"""Whether simulations can run here: stock `flwr-simulation` needs Ray beside it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import click

from flower_nats.model.errors import FlowerNatsError
from flower_nats.packages import how_to_install
from flower_nats_cli.flower import SUPEREXEC, environment_for, find_program

REMEDY = f"{how_to_install('simulation')}, with the pip of flower-superexec"


class RayMissingError(FlowerNatsError):
    """Simulations need Ray, which is not installed."""


def ray_is_installed() -> bool:
    """Whether Ray is there for the `flwr-simulation` that our SuperExec starts."""
    program = find_program(SUPEREXEC)
    if program.parent == Path(sys.executable).parent:
        return importlib.util.find_spec("ray") is not None
    python = program.with_name("python")
    if not python.exists():
        return True  # Nobody to ask: the run will tell.
    asked = [
        str(python),
        "-c",
        "import importlib.util as u; raise SystemExit(u.find_spec('ray') is None)",
    ]
    return subprocess.run(asked, env=environment_for(program), check=False).returncode == 0


def check_simulations_can_run(*, installs: bool) -> None:
    """Say what simulations lack, if it may be installed for them; raise RayMissingError if not."""
    if ray_is_installed():
        return
    if not installs:
        raise RayMissingError(f"Simulations need Ray, which is not installed. Remedy: {REMEDY}.")
    click.echo(
        "Note: Ray is not installed. Only apps that depend on flwr[simulation] can be simulated: it is "
        f"installed for each of their runs. Remedy: {REMEDY}.",
        err=True,
    )
