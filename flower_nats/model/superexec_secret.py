"""The secret that SuperExecs share with gateways, as a file holds it, and what each host makes of it.

A stock SuperExec says nothing of itself. One that `flower-nats superlink` or `up` starts has therefore a
secret that is its host's own: gateways know by it whose call it is, and superlinks give it no more
simulations than its host runs at a time.
"""

import hmac
from pathlib import Path

NO_SECRET = b""
"""What hosts derive their own from where nothing has to be proven."""

_SHORTEST_LINE = 16
"""Bytes that a line must have to be a secret of its own. Random bytes may hold an end of a line, and
what is left of it must not be easy to guess."""


def read_superexec_secrets(path: Path) -> list[bytes]:
    """Return every secret that a file lets SuperExecs prove, each as bytes.

    The whole file is one, byte by byte, as a SuperExec reads its own (flwr 1.33
    `supercore/auth/superexec_secret.py`). Two lines of at least 16 bytes are a secret each, so that one
    can take the place of the other while both are in use; so is one line without the end of it. Raises
    ValueError for an empty file, and OSError.
    """
    content = path.read_bytes()
    if not content:
        raise ValueError(f"The SuperExec secret in {path} is empty.")
    lines = content.removesuffix(b"\n").split(b"\n")
    if len(lines) > 2 or any(len(line) < _SHORTEST_LINE for line in lines):
        return [content]
    # A SuperExec's own file may end its line, or not.
    return list(dict.fromkeys([content, *lines, *(line + b"\n" for line in lines)]))


def secret_of_host(shared: bytes, host: str) -> bytes:
    """Return what the SuperExec of a host is to prove that it knows."""
    return hmac.new(shared, f"superexec of {host}".encode(), "sha256").hexdigest().encode()
