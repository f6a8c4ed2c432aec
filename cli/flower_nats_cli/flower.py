"""Stock Flower programs of any version: where they are and how they are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version as version_of_package
from pathlib import Path

from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from flower_nats.model.errors import FlowerNatsError
from flower_nats.packages import how_to_install
from flower_nats.settings import SuperexecSettings
from flower_nats_cli.addresses import split_address
from flower_nats_cli.app_environment import for_apps
from flower_nats_cli.app_user import check_user, find_user, variables_of
from flower_nats_cli.environment import without_ours, without_proxy_to
from flower_nats_cli.flower_version import (
    OLDEST,
    RUNTIME_ADDRESS_FLAG,
    SUPERNODE_PORT_FLAG,
    WITHOUT_PLUGIN_TYPE,
    FlowerVersion,
    FlowerVersionError,
)

SUPEREXEC = "flower-superexec"

RAY_CLUSTER = "RAY_ADDRESS"
"""Variable that names the Ray cluster that simulations connect to."""
_RAY_OF_ITS_OWN = "local"

_STDIN = Path("/dev/stdin")

_INSTALL = how_to_install("demo")
_REMEDIES = {
    SUPEREXEC: f"{_INSTALL}; or --isolation process, and a {SUPEREXEC} that you start yourself"
}


class FlowerMissingError(FlowerNatsError):
    """A stock Flower program is not installed."""


def find_program(name: str) -> Path:
    """Return the path of a stock program, beside this Python or on PATH.

    Raises FlowerMissingError.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        remedy = _REMEDIES.get(name, _INSTALL)
        raise FlowerMissingError(f"{name} is not installed. Remedy: {remedy}.")
    return Path(found)


@cache
def version_of(program: Path) -> FlowerVersion:
    """Return the version of a stock program; raises FlowerVersionError.

    For a program beside this Python, the installed packages tell the version. Any other program is
    run to tell its version, which takes a second or two.
    """
    if program.parent == Path(sys.executable).parent:
        return FlowerVersion.parse(version_of_package("flwr"))
    asked = subprocess.run(
        [str(program), "--version"],
        env=environment_for(program),
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.search(r"version: (\S+)", asked.stdout)
    if told is None:
        raise FlowerVersionError(f"{program} --version does not print the version of flwr.")
    return FlowerVersion.parse(told[1])


def superexec_version() -> FlowerVersion:
    """Return the version of the SuperExec that we would start.

    Raises FlowerMissingError, and FlowerVersionError if it is too old for us.
    """
    program = find_program(SUPEREXEC)
    version = version_of(program)
    if version < OLDEST:
        raise FlowerVersionError(
            f"{program} is of flwr {version}; the oldest supported version is {OLDEST}. Remedy: "
            f"{_REMEDIES[SUPEREXEC]}."
        )
    return version


def flwr_version() -> FlowerVersion | None:
    """Return the version of the `flwr` command that is installed here; None without one."""
    try:
        return version_of(find_program("flwr"))
    except (FlowerMissingError, FlowerVersionError):
        return None


def environment_for(program: Path, **extra: str) -> dict[str, str]:
    """Return the environment of a stock program: quiet, and able to find its siblings by name.

    Our own settings are not in it.
    """
    return _environment(program, without_ours(), extra)


def superexec_environment(
    settings: SuperexecSettings, program: Path, **extra: str
) -> dict[str, str]:
    """Return the environment of a SuperExec and its apps: only the variables that they need."""
    inherited = for_apps(os.environ, settings.environment)
    # Without this variable Ray looks for a cluster that any user of this machine has started. If
    # that cluster is gone, Ray looks for many minutes (ray 2.55 `_private/services.py`).
    inherited = {**inherited, RAY_CLUSTER: inherited.get(RAY_CLUSTER) or _RAY_OF_ITS_OWN}
    if settings.user is not None:
        # XDG variables name folders of the user who starts us.
        inherited = {name: it for name, it in inherited.items() if not name.startswith("XDG_")}
        inherited.update(variables_of(find_user(settings.user)))
    return _environment(program, inherited, extra)


def _environment(
    program: Path, inherited: Mapping[str, str], extra: Mapping[str, str]
) -> dict[str, str]:
    # By default these programs send no telemetry. A user who wants it sets the variables.
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    path = f"{program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**quiet, **inherited, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


def superexec_process(
    settings: SuperexecSettings,
    log: Path | None = None,
    pid_file: Path | None = None,
    **environment: str,
) -> OwnedProcess:
    """Return a `flower-superexec` for ServerApps that ends with us; not started yet."""
    program, secret = find_program(SUPEREXEC), settings.auth_secret_file
    host, _ = split_address(settings.runtime_api_address)
    direct = without_proxy_to(host, os.environ)
    if secret is not None:
        # Apps run as the same user and could open a file. Data that was read from a pipe is gone.
        settings = replace(settings, auth_secret_file=_STDIN)
    return OwnedProcess(
        ProcessSpec(
            name="superexec",
            command=[str(program), *superexec_flags(settings, version_of(program))],
            environment=superexec_environment(settings, program, **{**direct, **environment}),
            log=log,
            pid_file=pid_file,
            input=secret,
            user=None if settings.user is None else find_user(settings.user),
            guarded=True,
        )
    )


def check_superexec_user(settings: SuperexecSettings) -> None:
    """Raise BadParameter unless a SuperExec and its apps can run as the user of the settings."""
    if settings.user is not None:
        program = find_program(SUPEREXEC)
        environment = superexec_environment(settings, program)
        check_user(find_user(settings.user), program, settings.ca_certificate, environment)


def runs_apps_as_root(settings: SuperexecSettings) -> bool:
    """Whether apps run as root."""
    uid = os.geteuid() if settings.user is None else find_user(settings.user).uid
    return uid == 0


def superexec_flags(settings: SuperexecSettings, version: FlowerVersion) -> Sequence[str]:
    """Return the flags of a `flower-superexec` for ServerApps."""
    flags = [] if version >= WITHOUT_PLUGIN_TYPE else ["--plugin-type", "serverapp"]
    flags += trust_flags(settings.ca_certificate)
    renamed = version >= RUNTIME_ADDRESS_FLAG
    flags += ["--runtime-api-address" if renamed else "--appio-api-address"]
    flags += [settings.runtime_api_address]
    if settings.auth_secret_file is not None:
        flags += ["--superexec-auth-secret-file", str(settings.auth_secret_file)]
    if settings.runtime_dependency_installation:
        flags += ["--allow-runtime-dependency-installation"]
    return flags


def supernode_flags(
    fleet_address: str, own_address: str, ca_certificate: Path | None, version: FlowerVersion
) -> Sequence[str]:
    """Return the flags of a `flower-supernode` that serves its own ClientApps at `own_address`."""
    flags = [*trust_flags(ca_certificate), "--superlink", fleet_address]
    if version < SUPERNODE_PORT_FLAG:
        return [*flags, "--clientappio-api-address", own_address]
    host, port = split_address(own_address)
    return [*flags, "--host", host, "--port", str(port)]


def trust_flags(ca_certificate: Path | None) -> list[str]:
    """Return the flags of a stock program for TLS with a CA certificate; None: without TLS."""
    return (
        ["--insecure"] if ca_certificate is None else ["--root-certificates", str(ca_certificate)]
    )


def connection_config(name: str, address: str, ca_certificate: Path | None) -> str:
    """Return the three lines of a Flower config that name a SuperLink for `flwr`."""
    trust = "insecure = true"
    if ca_certificate is not None:
        trust = f"root-certificates = '{ca_certificate}'"
    return f'[superlink.{name}]\naddress = "{address}"\n{trust}'
