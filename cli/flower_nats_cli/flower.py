"""Stock Flower programs (flwr 1.33): where they are and how they are run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from flower_nats.model.errors import FlowerNatsError
from flower_nats.settings import SuperexecSettings
from flower_nats_cli.environment import without_ours

SUPEREXEC = "flower-superexec"

_INSTALL = "pip install 'flower-nats[demo]'"
_REMEDIES = {
    SUPEREXEC: f"{_INSTALL}, or --isolation process and a {SUPEREXEC} that you run elsewhere"
}


class FlowerMissingError(FlowerNatsError):
    """A stock Flower program is not installed."""


def find_program(name: str) -> Path:
    """Return the path of a stock program: beside this Python, or on PATH.

    Raises FlowerMissingError.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        remedy = _REMEDIES.get(name, _INSTALL)
        raise FlowerMissingError(f"{name} is not installed. Remedy: {remedy}")
    return Path(found)


def environment_for(program: Path, **extra: str) -> dict[str, str]:
    """Return the environment of a stock program: quiet, and able to find its siblings by name.

    Our own settings are not in it.
    """
    # Started by us they should not phone home; who wants that says so in the environment.
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**quiet, **without_ours(), "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


def superexec_process(
    settings: SuperexecSettings,
    log: Path | None = None,
    pid_file: Path | None = None,
    **environment: str,
) -> OwnedProcess:
    """Return a `flower-superexec` for ServerApps that ends with us; not started yet."""
    program = find_program(SUPEREXEC)
    return OwnedProcess(
        ProcessSpec(
            name="superexec",
            command=[str(program), *superexec_flags(settings)],
            environment=environment_for(program, **environment),
            log=log,
            pid_file=pid_file,
        )
    )


def superexec_flags(settings: SuperexecSettings) -> Sequence[str]:
    """Return the flags of a `flower-superexec` for ServerApps."""
    flags = ["--plugin-type", "serverapp"]
    if settings.ca_certificate is None:
        flags += ["--insecure"]
    else:
        flags += ["--root-certificates", str(settings.ca_certificate)]
    flags += ["--appio-api-address", settings.appio_api_address]
    if settings.auth_secret_file is not None:
        flags += ["--superexec-auth-secret-file", str(settings.auth_secret_file)]
    if settings.runtime_dependency_installation:
        flags += ["--allow-runtime-dependency-installation"]
    return flags


def connection_config(name: str, control_address: str, ca_certificate: Path | None) -> str:
    """Return the three lines of a Flower config that make a SuperLink known to `flwr`."""
    trust = "insecure = true"
    if ca_certificate is not None:
        trust = f"root-certificates = '{ca_certificate}'"
    return f'[superlink.{name}]\naddress = "{control_address}"\n{trust}'
