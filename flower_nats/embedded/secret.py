"""The password of an embedded server: made once per directory, readable by its owner alone."""

import hashlib
import secrets
from pathlib import Path

from flower_nats.embedded.ownership import read_ours
from flower_nats.embedded.process import private_directory, private_file


def secret_in(directory: Path, name: str = "password") -> str:
    """Return the URL-safe password kept in `directory`; the first call creates it.

    Raises NotOursError for a password that others may have written or read.
    """
    path = private_directory(directory) / name
    if not path.exists():
        private_file(path, secrets.token_urlsafe(24))
    return read_ours(path, secret=True)


def derived(secret: str, name: str) -> str:
    """Return a password for `name`, which reveals neither the secret nor other passwords."""
    return hashlib.sha256(f"{name} {secret}".encode()).hexdigest()
