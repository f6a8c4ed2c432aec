"""A small file system that a test can fill: a tmpfs, which needs root and no device."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.disk import NoDisk

_BLOCK = b"\0" * 1024 * 1024


class SmallDisk:
    """A small file system, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill_but(self, megabytes: int) -> None:
        """Fill the file system, and leave so many megabytes free."""
        free = shutil.disk_usage(self.path).free // len(_BLOCK)
        with self._ballast.open("ab") as file:
            for _ in range(free - megabytes):
                file.write(_BLOCK)

    def fill(self) -> None:
        """Fill the file system."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(_BLOCK)
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0")

    def free(self) -> None:
        """Free the room that was filled."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Make a small disk; it is unmounted when the context ends. Raises NoDisk."""
    if os.geteuid() != 0:
        raise NoDisk("mounting a file system needs root")
    path = folder / "small"
    path.mkdir()
    size = ["-o", f"size={megabytes}m"]
    made = subprocess.run(
        ["mount", "-t", "tmpfs", *size, "tmpfs", str(path)], capture_output=True, check=False
    )
    if made.returncode != 0:
        raise NoDisk(made.stderr.decode(errors="replace").strip())
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a failed test may have left a process on the disk, which is ended elsewhere.
        subprocess.run(["umount", "--lazy", str(path)], check=False)


@contextmanager
def read_only_folder(folder: Path) -> Iterator[Path]:
    """Make a read-only folder. Skips the test where root cannot mount a file system."""
    if os.geteuid() != 0:
        path = folder / "small"
        path.mkdir(mode=0o555)
        yield path
        return
    try:
        with small_disk(folder, 1) as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk.path)], check=True)
            yield disk.path
    except NoDisk as exc:
        pytest.skip(str(exc))
