"""Events of the runtime: a stream of what happened, for people and for webhooks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

ROOM_FOR_DETAILS = 500
"""Characters of an event's details that are kept."""


class Tone(StrEnum):
    """Whether somebody should look."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Kind:
    """One kind of event."""

    group: str
    words: str
    """The start of a line about it."""
    tone: Tone


KINDS: Mapping[str, Kind] = {
    "run_started": Kind("runs", "Run started", Tone.GOOD),
    "run_completed": Kind("runs", "Run completed", Tone.GOOD),
    "run_failed": Kind("runs", "Run failed", Tone.BAD),
    "run_stopped": Kind("runs", "Run stopped", Tone.NOTE),
    "run_deleted": Kind("runs", "Run deleted", Tone.NOTE),
    "node_registered": Kind("nodes", "SuperNode registered", Tone.GOOD),
    "node_online": Kind("nodes", "SuperNode online", Tone.GOOD),
    "node_offline": Kind("nodes", "SuperNode offline", Tone.BAD),
    "node_unregistered": Kind("nodes", "SuperNode unregistered", Tone.NOTE),
    "replica_started": Kind("replicas", "Replica started", Tone.GOOD),
    "replica_drained": Kind("replicas", "Replica drained", Tone.NOTE),
    "replica_lost": Kind("replicas", "Replica lost", Tone.BAD),
    "replica_back": Kind("replicas", "Replica back", Tone.GOOD),
    "nats_away": Kind("servers", "NATS away", Tone.BAD),
    "nats_back": Kind("servers", "NATS back", Tone.GOOD),
    "nats_server_lost": Kind("servers", "NATS server lost", Tone.BAD),
    "nats_server_back": Kind("servers", "NATS server back", Tone.GOOD),
    "postgresql_away": Kind("servers", "PostgreSQL away", Tone.BAD),
    "postgresql_back": Kind("servers", "PostgreSQL back", Tone.GOOD),
    "messages_lost": Kind("servers", "Messages lost", Tone.BAD),
    "room_low": Kind("disks", "Little room left", Tone.BAD),
    "room_back": Kind("disks", "Room again", Tone.GOOD),
    "housekeeping": Kind("housekeeping", "Removed", Tone.NOTE),
    "webhook_tested": Kind("webhooks", "Webhook tested", Tone.GOOD),
    "federation_changed": Kind("federations", "Federation changed", Tone.NOTE),
}
"""Every kind of event. Triggers of the database create those of runs, nodes and federations."""

GROUPS = tuple(dict.fromkeys(kind.group for kind in KINDS.values()))


def kinds_of(words: Iterable[str]) -> list[str]:
    """Return the kinds that `words` name; each word is a kind or a group, others count nothing."""
    wanted = set(words)
    return [name for name, kind in KINDS.items() if name in wanted or kind.group in wanted]


@dataclass(frozen=True)
class Event:
    """An event of the runtime."""

    event_id: int
    at: datetime
    kind: str
    name: str
    """The name of its object for people; empty if there is none."""
    details: str
    federation: str | None
    """None for events of the runtime as a whole, or of a node."""
    run_id: int | None
    node_id: int | None

    @property
    def what(self) -> Kind:
        """The kind; an unknown kind of a newer version is shown by its name."""
        return KINDS.get(self.kind) or Kind("", self.kind.replace("_", " "), Tone.NOTE)

    @property
    def text(self) -> str:
        """The event in one line."""
        about = self.name or (f"node {self.node_id}" if self.node_id is not None else "")
        number = f" (run {self.run_id})" if self.run_id is not None else ""
        parts = [f"{self.what.words}: {about}{number}" if about else self.what.words]
        return ". ".join([*parts, self.details] if self.details else parts)
