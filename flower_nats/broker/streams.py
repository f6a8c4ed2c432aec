"""The streams of the runtime, and their replicas on the present servers."""

from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.model.caller import ASKED_FOR

_NANOSECONDS = 1_000_000_000

DUPLICATE_WINDOW = 300
"""Seconds for which the broker remembers message ids. A replica that was stopped in the middle of a
write for longer than this could write twice. Tests stop replicas (SIGSTOP) for much shorter
times."""

BLOB_AGE = int(ASKED_FOR) + 300
"""Seconds after which a body in transit that was not fetched is dropped."""


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
    """Return the number of stream replicas: 3 if the broker is a cluster, else 1."""
    # This does not depend on how many servers are up: a server that is down comes back.
    return 3 if connection.server_info.get("cluster") else 1


async def ensure_streams(connection: Connection) -> None:
    """Create the streams, or update their configuration. Any replica may do this at any time."""
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
    """Return the streams that do not exist. Raises `Unavailable`.

    In a cluster only the elected leader answers this, not a server that has just started and knows
    no stream yet.
    """
    return set(subjects.STREAMS) - await connection.stream_names("fn.>")
