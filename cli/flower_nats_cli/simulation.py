"""Whether simulations can run here: stock `flwr-simulation` needs Ray beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import click

from flower_nats.model.errors import FlowerNatsError
from flower_nats.packages import how_to_install
from flower_nats_cli.addresses import accepts_connections
from flower_nats_cli.flower import RAY_CLUSTER, SUPEREXEC, environment_for, find_program

REMEDY = f"{how_to_install('simulation')}, with the pip of flower-superexec"

_ASK = """
import importlib.util
if importlib.util.find_spec("ray") is None:
    raise SystemExit("missing")
import ray
"""


class RayMissingError(FlowerNatsError):
    """Simulations need a Ray that works."""


class _Ray(Enum):
    WORKS = "works"
    MISSING = "missing"


def _ray() -> _Ray:
    """Return the state of the Ray that our SuperExec's `flwr-simulation` uses.

    Raises RayMissingError if it is installed and cannot be imported.
    """
    program = find_program(SUPEREXEC)
    python = program.with_name("python")
    if program.parent == Path(sys.executable).parent:
        python = Path(sys.executable)
    if not python.exists():
        return _Ray.WORKS  # There is no Python to ask. The run will show the error.
    asked = subprocess.run(
        [str(python), "-P", "-c", _ASK],
        env=environment_for(program),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0:
        return _Ray.WORKS
    said = asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"]
    if said == ["missing"]:
        return _Ray.MISSING
    raise RayMissingError(
        f"Simulations need Ray, which is installed but cannot be imported: {said[-1]}. Remedy: "
        f"{REMEDY.replace('install', 'install --force-reinstall')}."
    )


def check_simulations_can_run(*, installs: bool) -> None:
    """Warn of missing packages if they may be installed for a run; raise RayMissingError if not."""
    _check_cluster()
    if _ray() is _Ray.WORKS:
        return
    if not installs:
        raise RayMissingError(f"Simulations need Ray, which is not installed. Remedy: {REMEDY}.")
    click.echo(
        "Note: Ray is not installed. Only apps that depend on flwr[simulation] can be "
        f"simulated, because it is installed for each of their runs. Remedy: {REMEDY}.",
        err=True,
    )


def _check_cluster() -> None:
    """Raise RayMissingError if no Ray runs at the address where simulations would look for it."""
    address = os.environ.get(RAY_CLUSTER, "")
    # Only Ray knows the meaning of other forms, such as "auto".
    if re.fullmatch(r"[\w.-]+:\d+", address) and not accepts_connections(address):
        raise RayMissingError(
            f"{RAY_CLUSTER} is {address}, where no Ray answers. Remedy: `ray start --head --port "
            f"{address.rpartition(':')[2]}` there, or unset the variable."
        )
