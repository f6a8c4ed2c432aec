"""The lock files: all installed packages, with versions and hashes of files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
APP = tomllib.loads((ROOT / "examples" / "digits" / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUNTIME = PROJECT["project"]["dependencies"]
LOCKS = {
    "build.txt": PROJECT["build-system"]["requires"],
    "installer.txt": ["uv"],
    "runtime.txt": RUNTIME,
    "demo.txt": [*RUNTIME, *EXTRAS["embedded"], *EXTRAS["demo"]],
    "example.txt": [one for one in APP["project"]["dependencies"] if not one.startswith("flwr")],
    "dev.txt": [*RUNTIME, *EXTRAS["embedded"], *EXTRAS["demo"], *EXTRAS["dev"]],
}
"""The requirements that each file must hold."""

_ENTRY = re.compile(
    r"^([\w.-]+)==(\S+)(?: ; [^\\]+)?((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", re.M
)


def locked(name: str) -> dict[str, set[str]]:
    """Return the versions of each package: several if they depend on Python's version."""
    versions: dict[str, set[str]] = {}
    for package, version, _ in _ENTRY.findall((ROOT / "locks" / name).read_text()):
        versions.setdefault(canonicalize_name(package), set()).add(version)
    return versions


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_all_that_the_project_asks_for_with_hashes(name: str) -> None:
    versions = locked(name)

    for text in LOCKS[name]:
        requirement = Requirement(text)
        if requirement.name != "flower-nats":
            found = versions.get(canonicalize_name(requirement.name), set())
            assert found, f"make lock: {text}"
            assert all(one in requirement.specifier for one in found), f"make lock: {text}"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_nothing_but_versions_and_hashes(name: str) -> None:
    text = (ROOT / "locks" / name).read_text()

    left = _ENTRY.sub("", text)

    assert not [line for line in left.splitlines() if line and not line.startswith("#")]
    assert "://" not in text


@pytest.mark.parametrize("name", [name for name in LOCKS if name != "dev.txt"])
def test_all_locks_have_the_same_versions(name: str) -> None:
    everything = locked("dev.txt")

    assert all(everything[package] == versions for package, versions in locked(name).items())


def test_servers_that_others_have_packaged_are_no_newer_than_those_that_were_tried() -> None:
    for requirement in map(Requirement, EXTRAS["embedded"]):
        assert [one for one in requirement.specifier if one.operator == "<"], requirement


def test_an_audit_that_reaches_nobody_says_so() -> None:
    nobody = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}

    done = subprocess.run(
        [sys.executable, ROOT / "locks" / "audit.py"],
        env={**os.environ, **nobody, "NO_PROXY": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 2
    assert "the package index could not be asked" in done.stdout
    assert "The audit is NOT complete" in done.stdout
    assert "No known" not in done.stdout
