"""The streams of the runtime, and what they promise on the servers at hand."""

from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.model.caller import ASKED_FOR

_NANOSECONDS = 1_000_000_000

DUPLICATE_WINDOW = 300
"""Seconds for which the broker remembers message ids. A replica that was stopped in the middle of a
write and goes on later than this could write twice; SIGSTOP of a replica is tested well below it."""

BLOB_AGE = int(ASKED_FOR) + 300
"""Seconds after which a body in transit that nobody fetched is dropped."""


def _stream(name: str, subject: str, replicas: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject, subjects.trial(name)],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": DUPLICATE_WINDOW * _NANOSECONDS,
        **more,
    }


def replicas_for(connection: Connection) -> int:
    """Return how many copies of everything the broker at hand should hold: 3 if it is a cluster."""
    # However many of its servers are up right now: one that is down at our start comes back.
    return 3 if connection.server_info.get("cluster") else 1


async def ensure_streams(connection: Connection) -> None:
    """Create the streams, or bring them to today's configuration. Any replica may do it any time."""
    count = replicas_for(connection)
    for config in (
        _stream(
            subjects.MESSAGES_STREAM,
            subjects.MESSAGES_SUBJECTS,
            count,
            max_msgs_per_subject=1,
            allow_msg_ttl=True,
        ),
        _stream(subjects.OBJECTS_STREAM, subjects.OBJECTS_SUBJECTS, count, max_msgs_per_subject=1),
        _stream(subjects.LOGS_STREAM, subjects.LOGS_SUBJECTS, count),
        _stream(
            subjects.BLOBS_STREAM, subjects.BLOBS_SUBJECTS, count, max_age=BLOB_AGE * _NANOSECONDS
        ),
    ):
        await connection.ensure_stream(config)


async def missing_streams(connection: Connection) -> set[str]:
    """Return which of the streams are not there. Raises `Unavailable`.

    In a cluster the elected leader alone answers this, so that a server that has just started and
    knows of no stream yet does not.
    """
    return set(subjects.STREAMS) - await connection.stream_names("fn.>")
