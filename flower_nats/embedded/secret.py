"""The password of an embedded server: made once per directory, readable by its owner alone."""

import hashlib
import secrets
from pathlib import Path

from flower_nats.embedded.ownership import read_ours
from flower_nats.embedded.process import private_directory, private_file


def secret_in(directory: Path, name: str = "password") -> str:
    """Return the password kept in `directory`, which is made at the first call; URL-safe.

    Raises NotOursError for one that others may have written or read.
    """
    path = private_directory(directory) / name
    if not path.exists():
        private_file(path, secrets.token_urlsafe(24))
    return read_ours(path, secret=True)


def derived(secret: str, name: str) -> str:
    """Return another password, for `name`: who knows it knows neither the secret nor any other."""
    return hashlib.sha256(f"{name} {secret}".encode()).hexdigest()
