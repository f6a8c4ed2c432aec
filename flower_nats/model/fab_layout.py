"""Where the members of a FAB would be if stock Flower unpacked it (flwr 1.33 `cli/archive_utils.py`)."""

import zipfile
from bisect import bisect_left
from itertools import pairwise

REMEDY = 'Remedy: build it with "flwr build" and do not change it afterwards.'

_MAX_PATH = 4096
"""Characters; no Linux opens a longer path."""

_END = "\0"
"""Ends each part of a path. No name contains it, and it sorts a folder's content next to the
folder."""


class Layout:
    """The files and folders of an unpacked archive, by path.

    Raises ValueError, with a text for the archive's author, if it cannot be unpacked: a file in
    place of a folder, or outside of the target folder.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._members: dict[str, zipfile.ZipInfo] = {}
        for name in archive.namelist():
            # Of several members with one name, `getinfo` returns the last.
            self._put(archive.getinfo(name))
        self._paths = sorted(self._members)
        for path, following in pairwise(self._paths):
            if not self._members[path].is_dir() and following.startswith(path):
                raise _in_the_way(self._members[path].filename)

    def find(self, name: str) -> zipfile.ZipInfo | None:
        """Return the file that a relative path means, None if there is none."""
        if name.startswith("/") or len(name) > _MAX_PATH:
            return None
        path = ""
        for part in name.split("/"):
            if part == "..":
                if not path or not self._is_folder(path):
                    return None
                path = path[: path.rfind(_END, 0, -1) + 1]
            elif part not in ("", "."):
                path += part + _END
        member = self._members.get(path)
        return None if member is None or member.is_dir() else member

    def _put(self, member: zipfile.ZipInfo) -> None:
        name = member.filename
        if _leaves(name):
            raise ValueError(f"{quote(name)} in the app's FAB lies outside of it. {REMEDY}")
        # zipfile does the same.
        path = "".join(part + _END for part in name.split("/") if part not in ("", ".", ".."))
        before, is_folder = self._members.get(path), name.endswith("/")
        # An empty path means the app's own folder.
        if not (is_folder or path) or (before and before.is_dir() != is_folder):
            raise _in_the_way(name)
        self._members[path] = member

    def _is_folder(self, path: str) -> bool:
        if path in self._members:
            return self._members[path].is_dir()
        at = bisect_left(self._paths, path)
        return at < len(self._paths) and self._paths[at].startswith(path)


def quote(name: str) -> str:
    """Return a name, which may have 64 KiB, shortened for an error text."""
    return f'"{name}"' if len(name) <= 100 else f'"{name[:99]}…"'


def _leaves(name: str) -> bool:
    depth = 0
    for part in name.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0:
            return True
    return name.startswith("/")


def _in_the_way(name: str) -> ValueError:
    return ValueError(
        f"{quote(name)} in the app's FAB is a file where something else is a folder. {REMEDY}"
    )
