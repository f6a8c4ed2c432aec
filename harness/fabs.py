"""Small FABs that a server accepts and stock installs, and archives that are not FABs."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping

PROJECT = """
[project]
name = "app"
version = "1.2.3"
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"
[tool.flwr.app.config]
rounds = 3
train.rate = 0.1
"""


def make_fab(project: str | bytes = PROJECT) -> bytes:
    """Return a FAB with this pyproject.toml. Its bytes do not depend on the time."""
    return pack({"pyproject.toml": project, "app/server.py": "app = None\n"})


def pack(files: Mapping[str, str | bytes]) -> bytes:
    """Return a FAB of these files by name, with the file list that stock demands."""
    contents = {
        name: content.encode() if isinstance(content, str) else content
        for name, content in files.items()
    }
    return archive({**contents, ".info/CONTENT": list_of(contents).encode()}.items())


def list_of(files: Mapping[str, bytes]) -> str:
    """Return the list `.info/CONTENT` of files: path, SHA-256 and size in bits."""
    return "\n".join(
        f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}"
        for name, content in files.items()
    )


def archive(members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive of members. It need not be a FAB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in members:
            # Without a ZipInfo, the member would get the current time.
            zipped.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()
