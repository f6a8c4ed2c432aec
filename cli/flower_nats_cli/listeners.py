"""The process that listens on a port of this machine, as far as this user may see it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"
"""The state of a listening socket in `/proc/net/tcp` (linux/include/net/tcp_states.h)."""


def listener_on(port: int) -> tuple[int, str] | None:
    """Return the process id and the command of a port's listener; None if that is unknown.

    It is unknown if nobody listens, if the listener belongs to another user, and outside Linux.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return None
    for process in _PROC.glob("[0-9]*"):
        # Processes may end, and we may not read those of other users.
        with suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                return int(process.name), _name_of(
                    [word.decode(errors="replace") for word in words]
                )
    return None


def _listening(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                local, state, inode = fields[1], fields[3], fields[9]
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    yield inode


def _name_of(words: list[str]) -> str:
    """Return a program's name for people; for a Python program the script, not the interpreter."""
    first = Path(words[0]).name
    if first.startswith("python") and len(words) > 1 and not words[1].startswith("-"):
        return Path(words[1]).name
    return first
