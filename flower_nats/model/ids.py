"""Ids of runs, series, nodes and tasks: random and unsigned, 64 bits wide."""

import hashlib
import secrets

TOKEN_BYTES = 128
"""Bytes of a task token, which is sent as twice as many hex digits (flwr 1.33)."""


def new_id() -> int:
    """Return a random id; never 0 (unset on the wire) or 1 (the SuperLink's own node id)."""
    return secrets.randbelow(2**64 - 2) + 2


def token_for(request_id: str, task_id: int) -> str:
    """Return the token that a request gets for a task: the same one however often it is made.

    Gateways make it, of the random id of the request, and neither of both leaves them: superlinks get
    the hash of the token alone.
    """
    return hashlib.shake_256(f"task-token {task_id} {request_id}".encode()).hexdigest(TOKEN_BYTES)


def token_for_any(request_id: str) -> str:
    """Return the token that a request gets for whichever task it gets: it gets no more than one."""
    return token_for(request_id, 0)


def token_hash(token: str) -> bytes:
    """Return what superlinks and the database know of a task token: enough to know it again, not to
    use it."""
    return hashlib.sha256(token.encode()).digest()
