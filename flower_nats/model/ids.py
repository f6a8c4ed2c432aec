"""Ids of runs, series, nodes and tasks: random and unsigned, 64 bits wide."""

import hashlib
import secrets

TOKEN_BYTES = 128
"""Bytes of a task token, which is sent as twice as many hex digits (flwr 1.33)."""


def new_id() -> int:
    """Return a random id; never 0 (unset on the wire) or 1 (the SuperLink's own node id)."""
    return secrets.randbelow(2**64 - 2) + 2


def token_for(request_id: str, task_id: int) -> str:
    """Return the token that a request gets for a task, the same at each repetition.

    Gateways derive it from the random id of the request. Neither leaves the gateway: superlinks get
    only the hash of the token.
    """
    return hashlib.shake_256(f"task-token {task_id} {request_id}".encode()).hexdigest(TOKEN_BYTES)


def token_for_any(request_id: str) -> str:
    """Return the token that a request gets for any task: a request gets at most one task."""
    return token_for(request_id, 0)


def token_hash(token: str) -> bytes:
    """Return the hash of a task token, with which superlinks recognise it but cannot use it."""
    return hashlib.sha256(token.encode()).digest()
