"""Log files of several processes, as one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

_POLL_SECONDS = 0.2


def last_lines(files: Mapping[str, Path], count: int) -> Iterator[str]:
    """Yield the last lines of each file, each after the name of its process."""
    for name, file in files.items():
        with file.open(errors="replace") as lines:
            for line in deque(lines, maxlen=count):
                yield f"{name} | {line.rstrip()}"


def follow(files: Mapping[str, Path]) -> Iterator[str]:
    """Yield each line that is written from now on, until the caller stops."""
    readers = {name: file.open(errors="replace") for name, file in files.items()}
    for reader in readers.values():
        reader.seek(0, 2)
    while True:
        found = False
        for name, reader in readers.items():
            for line in _new_lines(reader, files[name]):
                found = True
                yield f"{name} | {line.rstrip()}"
        if not found:
            time.sleep(_POLL_SECONDS)


def _new_lines(reader: TextIO, file: Path) -> Iterator[str]:
    if file.stat().st_size < reader.tell():
        # The file was truncated. Its writer goes on at the start.
        reader.seek(0)
    while line := reader.readline():
        yield line
