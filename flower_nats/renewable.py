"""Values from files that are read again after a renewal: certificates, secrets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from flower_nats.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_Stamp = tuple[int, ...]


class Renewable(Generic[T]):
    """A value made from files, always from their newest content.

    Unusable files, such as a certificate without its new key, leave the value as it is until they
    change again. A look costs one system call per file.
    """

    def __init__(self, files: Sequence[Path], make: Callable[[], T]) -> None:
        """`make` reads the files. Its errors are raised now, and only logged later."""
        self._files = files
        self._make = make
        # The stamps come before the read, so that later changes are read again.
        self._stamps = self._look()
        self._value = make()

    @property
    def value(self) -> T:
        """The value from the present files, or from the last usable ones."""
        self.renew()
        return self._value

    def renew(self) -> bool:
        """Check the files; return whether there is a new value."""
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
    """Return a stamp that changes with every write or replacement; None without a file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
