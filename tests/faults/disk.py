"""A disk that can lose its power: data that was not synced before is gone.

The disk is an ext4 file system in a file, on a loop device. Tests of file systems use the same cut
(`EXT4_IOC_SHUTDOWN` without flushing the journal). From then on nothing reaches the disk, and the
data in the page cache is lost. The next mount replays the journal, like after any power cut.
A kill -9 is milder: after it the kernel still writes the data that it was given.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.children import wait_until

_SHUTDOWN = 0x8004587D
"""`_IOR('X', 125, __u32)`."""

_WITHOUT_FLUSHING = 2
_SIZE_BYTES = 2 * 1024**3
"""The file is sparse: it takes only the room of the data written to it."""

_COMMAND_SECONDS = 60.0


class NoDisk(Exception):
    """This machine does not let us make a disk."""


class Disk:
    """An ext4 file system, mounted at `path`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._image = folder / "disk.img"

    def format(self) -> None:
        """Make the file system, and mount it."""
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self.mount()

    def mount(self) -> None:
        """Mount the file system; this replays the journal."""
        _run("mount", "-o", "loop", "-t", "ext4", str(self._image), str(self.path))

    def cut(self) -> None:
        """Cut the power. Stop the processes that use the disk first; kill them before a mount."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Unmount the file system, once every process that used it has ended.

        Children of a killed process end a moment after it.
        """
        wait_until(self._unmounts, _COMMAND_SECONDS, f"{self.path} is no longer in use")

    def _unmounts(self) -> bool:
        try:
            _run("umount", str(self.path))
        except subprocess.CalledProcessError as exc:
            if b"busy" not in exc.stderr:
                raise
            return False
        return True


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """Make a disk, which is always unmounted when the context ends.

    Raises NoDisk.
    """
    if os.geteuid() != 0:
        raise NoDisk("mounting a file system needs root")
    if missing := [name for name in ("mkfs.ext4", "mount", "umount") if shutil.which(name) is None]:
        raise NoDisk(f"not installed: {missing}")
    one = Disk(folder)
    try:
        try:
            one.format()
        except subprocess.CalledProcessError as exc:
            raise NoDisk(exc.stderr.decode(errors="replace").strip()) from exc
        yield one
    finally:
        if os.path.ismount(one.path):
            # Lazily: a failed test may have left a process on the disk, which is ended elsewhere.
            _run("umount", "--lazy", str(one.path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_COMMAND_SECONDS)
