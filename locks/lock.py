"""Write the lock files beside this script: every package with its version and the hashes of its files.

``make lock``, after a change of dependencies in pyproject.toml. Versions that are locked stay, unless
``--upgrade`` or ``--upgrade-package NAME`` is said. Each file is good for Python 3.11 and newer, and
for every platform that the packages have files for.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent / "pyproject.toml"

DEV = FOLDER / "dev.txt"
"""Everything; the others have parts of it, in the same versions."""

PARTS = {
    # What the image holds.
    FOLDER / "runtime.txt": [str(PROJECT)],
    FOLDER / "demo.txt": [str(PROJECT), "--extra", "demo"],
}
BUILD = FOLDER / "build.txt"
"""What builds our own package."""

INSTALLER = FOLDER / "installer.txt"
"""What installs all of `dev.txt`, in a tenth of pip's time."""

EXAMPLE = FOLDER / "example.txt"
"""What the example app needs beside flwr, for the image of Compose that runs apps."""
APP = FOLDER.parent / "examples" / "digits" / "pyproject.toml"


def main(flags: Sequence[str]) -> None:
    """Write all of them."""
    build = _read(PROJECT)["build-system"]["requires"]
    needed = [one for one in _read(APP)["project"]["dependencies"] if not one.startswith("flwr")]
    _compile(DEV, [str(PROJECT), "--extra", "dev", *flags])
    for file, source in PARTS.items():
        _compile(file, [*source, "--constraints", str(DEV)])
    for file, given in ((BUILD, build), (INSTALLER, ["uv"]), (EXAMPLE, needed)):
        _compile(file, ["-", "--constraints", str(DEV)], "\n".join(given))


def _read(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _compile(file: Path, source: Sequence[str], given: str = "") -> None:
    command = [
        *(str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet"),
        *("--universal", "--python-version", "3.11", "--generate-hashes"),
        *("--no-annotate", "--custom-compile-command", "make lock"),
        *("--output-file", str(file), *source),
    ]
    subprocess.run(command, input=given, text=True, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
