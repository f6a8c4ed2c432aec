"""Ids of runs, series, nodes and tasks: random and unsigned, 64 bits wide."""

import hashlib
import secrets

TOKEN_BYTES = 128
"""Random bytes of a task token, which is sent as twice as many hex digits (flwr 1.33)."""


def new_id() -> int:
    """Return a random id; never 0 (unset on the wire) or 1 (the SuperLink's own node id)."""
    return secrets.randbelow(2**64 - 2) + 2


def new_token() -> str:
    """Return a fresh task token."""
    return secrets.token_hex(TOKEN_BYTES)


def token_hash(token: str) -> bytes:
    """Return what the database keeps of a task token: enough to know it again, not to use it."""
    return hashlib.sha256(token.encode()).digest()
