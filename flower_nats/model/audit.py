"""Events of the audit trail, and the chain that they form."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

DONE = "done"
"""The outcome of a call that was not refused."""

_LONGEST = 200
"""Characters of texts that callers write, such as the name of a federation."""


@dataclass(frozen=True)
class AuditEvent:
    """A call that somebody made, done or refused."""

    account_id: str
    account_name: str
    address: str
    """Where the call came from, if that is known."""
    action: str
    """The name of the call."""
    object: str
    """The object of the call, such as `run 5` or `@ana/lab`."""
    outcome: str
    """`done`, or the name of the refusal's code."""
    request_id: str


@dataclass(frozen=True)
class ChainedEvent:
    """An event with its place in the chain."""

    event_id: int
    """One more than the id of the event before."""
    at: datetime
    event: AuditEvent
    hash: bytes


def chain_hash(previous: bytes, event_id: int, at: datetime, event: AuditEvent) -> bytes:
    """Return the SHA-256 of an event and of the hash before it, as JSON: `docs/audit.md` says how."""
    parts = [
        previous.hex(),
        event_id,
        at.astimezone(UTC).isoformat(timespec="microseconds"),
        event.account_id,
        event.account_name,
        event.address,
        event.action,
        event.object,
        event.outcome,
        event.request_id,
    ]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).digest()


def cut(text: str) -> str:
    """Cut a caller's text to the length for events."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
