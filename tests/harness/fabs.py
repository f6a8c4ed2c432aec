"""The smallest FAB that a server takes."""

from __future__ import annotations

import io
import zipfile

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


def make_fab(project: str = PROJECT) -> bytes:
    """Return a FAB with this pyproject.toml."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", project)
        archive.writestr("app/server.py", "app = None\n")
    return buffer.getvalue()
