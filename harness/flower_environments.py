"""Environments of flwr releases: this one, and virtual environments that are made once and kept.

``python -m harness.flower_environments`` makes the environments that `make test` needs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.version import Version

from harness.environment import SCRIPTS, clean_environment

VERSIONS = (
    *("1.30.0", "1.31.0", "1.32.1", "1.33.0", "1.34.0", "1.35.0", "1.36.0"),
    *("1.37.0", "1.38.0", "1.39.0", "1.40.0", "1.41.0", "1.42.0"),
)
"""The newest patch release of each minor version that is supported."""

LAST_OVER_GRPC = "1.33.0"
"""The last release with only gRPC in all its programs."""

NEEDED_BY_TESTS = ("1.30.0", LAST_OVER_GRPC, "1.35.0", "1.39.0")
"""Environments to make before the tests: an installation takes minutes on a busy machine."""

FOLDER_VARIABLE = "FLOWER_NATS_MATRIX_DIR"
_DEFAULT_FOLDER = Path(__file__).parents[1] / ".matrix"
_COMPLETE = "complete"
"""Name of the file that marks a complete environment."""

_UV = str(SCRIPTS / "uv")
"""uv installs in a third of pip's time."""

_CHECK = "import flwr.app, flwr.clientapp, flwr.serverapp, numpy"


class InstallError(Exception):
    """An environment cannot be made."""


@dataclass(frozen=True)
class Environment:
    """The folder of the programs of one flwr release."""

    version: Version
    scripts: Path

    def program(self, name: str) -> str:
        """Return the path of one of its programs."""
        return str(self.scripts / name)

    def variables(self, home: Path) -> dict[str, str]:
        """Return variables for its programs, which find each other but no code of ours."""
        return {
            "PATH": f"{self.scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "",
            "FLWR_HOME": str(home),
        }


def installed() -> Environment:
    """Return the environment of this process, which has the newest flwr that was tried."""
    return Environment(Version(metadata.version("flwr")), SCRIPTS)


def environment(version: str) -> Environment:
    """Return the environment of a flwr release; make it if it is missing.

    The environment of this process serves for its own version. Raises InstallError.
    """
    if Version(version) == installed().version:
        return installed()
    place = completed_environment(version, lambda place: _install(version, place))
    return Environment(Version(version), place / "bin")


def completed_environment(name: str, install: Callable[[Path], None]) -> Path:
    """Return the virtual environment with this name.

    If it is missing, it is made, and `install` fills it. Raises InstallError.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or _DEFAULT_FOLDER).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / name
    with _locked(folder / f"{name}.lock"):
        if not (place / _COMPLETE).exists():
            # A half-made environment may hold anything.
            shutil.rmtree(place, ignore_errors=True)
            run_to_end(_UV, "venv", "--quiet", "--python", sys.executable, str(place))
            install(place)
            (place / _COMPLETE).touch()
    return place


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from making the same environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install_packages(place: Path, *packages: str) -> None:
    """Install packages in an environment. Raises InstallError."""
    python = str(place / "bin" / "python")
    run_to_end(_UV, "pip", "install", "--quiet", "--python", python, *packages)


def _install(version: str, place: Path) -> None:
    install_packages(place, f"flwr=={version}", "numpy")
    run_to_end(str(place / "bin" / "python"), "-c", _CHECK)
    said = run_to_end(str(place / "bin" / "flwr"), "--version")
    if version not in said:
        raise InstallError(f"flwr --version of {version} says {said}")


def run_to_end(*command: str) -> str:
    """Run a command and return its output. Raises InstallError if it fails."""
    done = subprocess.run(
        command,
        env=clean_environment({"PYTHONPATH": ""}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InstallError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    for needed in NEEDED_BY_TESTS:
        environment(needed)
