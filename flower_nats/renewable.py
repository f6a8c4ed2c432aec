"""What is made of files, and made anew when somebody has renewed them: certificates, secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from flower_nats.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_Stamp = tuple[int, ...]


class Renewable(Generic[T]):
    """A value that is made of files, and of their newest content whenever it is asked for.

    Files that cannot be used, such as a certificate whose key has not been written yet, leave the value
    as it is, until they change again. Looking costs one system call a file.
    """

    def __init__(self, files: Sequence[Path], make: Callable[[], T]) -> None:
        """`make` reads the files. What it raises now is raised, and logged from then on."""
        self._files = files
        self._make = make
        # Before the files are read: what changes meanwhile is read again.
        self._stamps = self._look()
        self._value = make()

    @property
    def value(self) -> T:
        """The value, of the files as they are now if that can be."""
        self.renew()
        return self._value

    def renew(self) -> bool:
        """Look at the files; return whether there is a new value."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        files = [str(file) for file in self._files]
        try:
            self._value = self._make()
        except (OSError, ValueError) as exc:
            log.warning(
                "files_not_usable", files=files, reason=str(exc), kept="what was read before"
            )
            return False
        log.info("files_read_again", files=files)
        return True

    def _look(self) -> list[_Stamp | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> _Stamp | None:
    """Return what differs once a file has been written or replaced; None if there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
