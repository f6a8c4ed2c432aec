"""The zip archive that a FAB is, and whether apps can be installed from it.

`flwr-serverapp` and SuperNodes unpack the whole of it into an empty folder and compare the files
with `.info/CONTENT` (flwr 1.33 `cli/install.py`): a line for each file, `path,SHA-256 in hex,size`.
They check neither the size nor unlisted files. This module does the same in memory. It does not
check limits of file systems, such as the length of names.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator

from flower_nats.model.fab_layout import REMEDY, Layout, quote

MAX_UNPACKED_BYTES = 512 * 1024 * 1024
"""Bytes: fifty times the largest FAB, and more than code and text unpack to. It takes seconds at
most.

Without a bound, 10 MiB could unpack to terabytes.
"""

MAX_FILES = 10_000
"""Files and folders of one app. Each costs a SuperNode some time to install, however small it is."""

MAX_NAME = 1_024
"""Characters of a file's path in its app. Most systems open no file with a path of four times
that."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compressions that stock uses, and others that unpack quickly."""

_PIECE = 64 * 1024

_MAX_LIST_BYTES = 10 * 1024 * 1024
"""As large as the FAB: a file takes more of the FAB (twice its name and 76 bytes) than of the
list."""

_LIST = ".info/CONTENT"


class FabArchive:
    """The archive of a FAB.

    Every error in it is a ValueError. Its text names the error and the remedy for the app's author.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        # With a damaged archive, zipfile and its decompressors raise nearly any exception.
        except Exception as exc:
            raise ValueError(f"The app's FAB is not a readable zip archive ({exc}).") from exc
        self._check_members()

    def read(self, name: str, limit: int) -> bytes:
        """Return a member, which must exist and have at most `limit` bytes."""
        if name not in self._zip.namelist():
            raise ValueError(f"The app's FAB holds no {name}.")
        return self._read(self._zip.getinfo(name), limit)

    def check_installable(self) -> None:
        """Check that stock Flower could install the app."""
        layout = Layout(self._zip)
        self._check_size()
        digests = {name: self._digest(name) for name in self._names()}
        for path, digest in self._list(layout):
            member = layout.find(path)
            if member is None:
                raise ValueError(
                    f"{_LIST} in the app's FAB lists {quote(path)}, which is not in the FAB. "
                    f"{REMEDY}"
                )
            if digests[member.filename] != digest:
                raise ValueError(
                    f"The file {quote(path)} in the app's FAB does not have the SHA-256 in "
                    f"{_LIST}. {REMEDY}"
                )

    def _check_members(self) -> None:
        members = self._zip.infolist()
        if len(members) > MAX_FILES:
            raise ValueError(
                f"The app's FAB holds {len(members):,} files, and at most {MAX_FILES:,} are accepted. "
                'Exclude data from it with "fab-exclude" in pyproject.toml.'
            )
        for member in members:
            name = member.filename
            if len(name) > MAX_NAME:
                raise ValueError(
                    f"The path {quote(name)} in the app's FAB has {len(name):,} characters, and at "
                    f"most {MAX_NAME:,} are accepted. Move the file to a folder with a shorter name."
                )
            if member.compress_type not in _METHODS:
                raise ValueError(
                    f"{quote(name)} in the app's FAB is not packed with deflate, the only "
                    f"method that is accepted. {REMEDY}"
                )

    def _names(self) -> set[str]:
        return {name for name in self._zip.namelist() if not name.endswith("/")}

    def _check_size(self) -> None:
        size = sum(self._zip.getinfo(name).file_size for name in self._names())
        if size > MAX_UNPACKED_BYTES:
            raise ValueError(
                f"The app's FAB unpacks to {size:,} bytes, and at most {MAX_UNPACKED_BYTES:,} "
                "(512 MiB) are accepted. Exclude data and models from it with "
                '"fab-exclude" in pyproject.toml.'
            )

    def _list(self, layout: Layout) -> Iterator[tuple[str, str]]:
        """Yield path and SHA-256 of each file that the FAB's list names."""
        listed = layout.find(_LIST)
        if listed is None:
            raise ValueError(f"The app's FAB holds no {_LIST}, the list of its files. {REMEDY}")
        try:
            text = self._read(listed, _MAX_LIST_BYTES).decode("utf-8")
        except UnicodeDecodeError as exc:
            raise ValueError(f"{_LIST} in the app's FAB is not UTF-8 text. {REMEDY}") from exc
        # Line ends as in every text file that Python opens.
        lines = text.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
        for line in lines:
            parts = line.split(",")
            if len(parts) != 3:
                raise ValueError(
                    f"The line {quote(line)} of {_LIST} in the app's FAB is not of the form "
                    f"path,SHA-256,size. {REMEDY}"
                )
            yield parts[0], parts[1]

    def _read(self, member: zipfile.ZipInfo, limit: int) -> bytes:
        pieces, size = [], 0
        for piece in self._pieces(member):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise ValueError(f"The app's {member.filename} is larger than {limit:,} bytes.")
        return b"".join(pieces)

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        for piece in self._pieces(self._zip.getinfo(name)):
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self._zip.open(member) as file:
                while piece := file.read(_PIECE):
                    yield piece
        # As in `__init__`.
        except Exception as exc:
            raise ValueError(
                "The app's FAB is not a readable zip archive: "
                f"{quote(member.filename)} cannot be unpacked ({exc or type(exc).__name__}). "
                f"{REMEDY}"
            ) from exc
