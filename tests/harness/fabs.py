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
    """Return a FAB with this pyproject.toml; the same at any time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # A name alone would be given the time of now.
        archive.writestr(zipfile.ZipInfo("pyproject.toml"), project)
        archive.writestr(zipfile.ZipInfo("app/server.py"), "app = None\n")
    return buffer.getvalue()
