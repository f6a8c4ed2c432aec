"""Build a release and check that it is complete: `make release` runs `python -m harness.release`.

It builds the source distribution, and the wheel from that. It compares their files with the
packages' files in git. It installs the wheel in a new environment, and trains there with
`flower-nats demo`.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import BytesParser
from pathlib import Path

from packaging.metadata import Metadata

from harness.environment import SCRIPTS, clean_environment

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

_NOT_RELEASED = ("tests", "harness", "benchmarks", "docs", "compose", "locks")
"""Folders of the repository that are not released."""


class NotWhole(Exception):
    """A built file lacks something, or holds too much."""


def build(folder: Path) -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it; return both."""
    name = f"flower_nats-{PROJECT['project']['version']}"
    command = [str(SCRIPTS / "uv"), "build", "--quiet", "--no-build-isolation", "--python"]
    _run([*command, sys.executable, "--out-dir", str(folder), str(ROOT)])
    return folder / f"{name}.tar.gz", folder / f"{name}-py3-none-any.whl"


def check(source: Path, wheel: Path) -> None:
    """Raise NotWhole unless both hold the packages' files in git, and no other file of ours."""
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        _check_metadata(files.read(metadata))
    _compare(wheel, _wanted(), {name for name in names if ".dist-info/" not in name})
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames() if "/" in name}
    _compare(source, set(_of_packages()), held, more=True)
    if astray := sorted(name for name in held if name.partition("/")[0] in _NOT_RELEASED):
        raise NotWhole(f"{source.name} holds {', '.join(astray)}.")


def try_demo(wheel: Path) -> None:
    """Install the wheel as users do, in an environment of its own, and train there."""
    with tempfile.TemporaryDirectory() as folder:
        # PostgreSQL of root runs as another user, who needs access.
        Path(folder).chmod(0o755)
        environment = Path(folder) / "environment"
        _run([sys.executable, "-m", "venv", str(environment)])
        _run([str(environment / "bin/pip"), "install", "--quiet", f"{wheel}[demo]"])
        for command in (["--version"], ["demo"]):
            _run([str(environment / "bin/flower-nats"), *command], Path(folder))


def _check_metadata(text: bytes) -> None:
    said = Metadata.from_email(text)
    message = BytesParser().parsebytes(text)
    if said.description_content_type != "text/markdown" or not message.get_payload():
        raise NotWhole("The wheel has no description in Markdown.")
    if str(said.version) != PROJECT["project"]["version"]:
        raise NotWhole(f"The wheel says that it is {said.version}.")


def _of_packages() -> Iterator[str]:
    """Yield the packages' files in git, by their paths in the repository."""
    folders = PROJECT["tool"]["setuptools"]["package-dir"].values()
    listed = _run(["git", "-C", str(ROOT), "ls-files", "-z", *folders], show=False)
    # Sources of generated code are not installed.
    generated = (".proto", "/generate.py")
    yield from (name for name in listed.split("\0") if name and not name.endswith(generated))


def _wanted() -> set[str]:
    """Return the same files by their paths after installation."""
    packages = PROJECT["tool"]["setuptools"]["package-dir"]
    places = {folder: name.replace(".", "/") for name, folder in packages.items()}
    wanted = set()
    for name in _of_packages():
        folder = next(folder for folder in places if name.startswith(f"{folder}/"))
        wanted.add(places[folder] + name.removeprefix(folder))
    return wanted


def _compare(file: Path, wanted: set[str], held: Iterable[str], more: bool = False) -> None:
    held = {name for name in held if not name.endswith("/generate.py")}
    missing, astray = sorted(wanted - held), sorted(held - wanted)
    if missing:
        raise NotWhole(f"{file.name} lacks {', '.join(missing)}.")
    if astray and not more:
        raise NotWhole(f"{file.name} holds {', '.join(astray)} as well.")


def _run(command: list[str], where: Path = ROOT, show: bool = True) -> str:
    done = subprocess.run(
        command,
        cwd=where,
        env=clean_environment({"PYTHONPATH": ""}),
        stdout=None if show else subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout or ""


def main() -> None:
    """Build, check and try a release; then print the checksums."""
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    files = build(folder)
    check(*files)
    try_demo(files[1])
    for file in files:
        print(hashlib.sha256(file.read_bytes()).hexdigest(), file.relative_to(ROOT))
    newest = next(
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")
    )
    version = PROJECT["project"]["version"]
    if newest != f"## {version}":
        print(f"They are no release yet: CHANGELOG.md begins with {newest!r}, not '## {version}'.")


if __name__ == "__main__":
    main()
