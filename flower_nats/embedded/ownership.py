"""Trust in files and directories: they must be ours or root's, and closed to other users.

ssh has the same rule for its files. Without it, another user could set our password, or name in a
pid file the process that we end.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from flower_nats.model.errors import FlowerNatsError

_CHANGE = stat.S_IWGRP | stat.S_IWOTH
_USE = stat.S_IRWXG | stat.S_IRWXO


class NotOursError(FlowerNatsError):
    """Somebody else may have put a file or directory there, or changed it."""


def check_directory(path: Path) -> None:
    """Raise NotOursError unless `path` is a directory that can be trusted."""
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotOursError(f"{path} is not a directory. Remedy: check what it is, and remove it.")
    _check(path, found, _CHANGE)


def read_ours(path: Path, *, secret: bool = False) -> str:
    """Return the content of a trusted file; `secret`: of one that only its owner can read.

    Raises NotOursError, and OSError.
    """
    check_directory(path.parent)
    # A pipe in place of a file must not block us.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_open(descriptor, path, secret=secret)
        with os.fdopen(descriptor, closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def check_open(descriptor: int, path: Path, *, secret: bool = False) -> None:
    """Raise NotOursError unless the open file, which is at `path`, can be trusted."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise NotOursError(
            f"{path} is not a regular file. Remedy: check what it is, and remove it."
        )
    _check(path, found, _USE if secret else _CHANGE)


def _check(path: Path, found: os.stat_result, forbidden: int) -> None:
    owner, us = _name(found.st_uid), _name(os.geteuid())
    if found.st_uid not in (0, os.geteuid()):
        raise NotOursError(
            f"{path} belongs to {owner}, and may contain files that harm {us}. Remedy: run this "
            f"command as {owner}, or on another directory. Give the directory to {us} (chown) "
            "only if you know its contents."
        )
    if found.st_mode & forbidden:
        verb, change = ("change", "go-w") if forbidden == _CHANGE else ("read or change", "go-rwx")
        raise NotOursError(
            f"Users other than its owner may {verb} {path} (mode "
            f"{stat.S_IMODE(found.st_mode):o}). Remedy: check that nobody did, then run chmod "
            f"{change} {path}"
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
