"""The secret that SuperExecs share with gateways, as a file, and the secrets derived for hosts.

A stock SuperExec does not identify itself. So a SuperExec that `flower-nats superlink` or `up`
starts gets a secret of its host. By this secret gateways recognise the host, and superlinks limit
the host's simulations.
"""

import hmac
from pathlib import Path

NO_SECRET = b""
"""The secret from which hosts derive their own if no secret is set."""

_SHORTEST_LINE = 16
"""Bytes that a line needs to be a secret of its own. Random bytes may contain a line end, and the
rest of such a line must not be easy to guess."""


def read_superexec_secrets(path: Path) -> list[bytes]:
    """Return every secret in a file that SuperExecs may use, each as bytes.

    The whole file is a secret, byte by byte, because a SuperExec reads its own file so (flwr 1.33
    `supercore/auth/superexec_secret.py`). If the file has two lines of at least 16 bytes, each line
    is a secret too, so that one can replace the other while both are in use. A single line without
    its line end is a secret too. Raises ValueError for an empty file, and OSError.
    """
    content = path.read_bytes()
    if not content:
        raise ValueError(f"The SuperExec secret in {path} is empty.")
    lines = content.removesuffix(b"\n").split(b"\n")
    if len(lines) > 2 or any(len(line) < _SHORTEST_LINE for line in lines):
        return [content]
    # A SuperExec's own file may have a line end or not.
    return list(dict.fromkeys([content, *lines, *(line + b"\n" for line in lines)]))


def secret_of_host(shared: bytes, host: str) -> bytes:
    """Return the secret that the SuperExec of a host has to prove."""
    return hmac.new(shared, f"superexec of {host}".encode(), "sha256").hexdigest().encode()
