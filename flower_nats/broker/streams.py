"""The streams of the runtime, and what they promise on the servers at hand."""

import asyncio
from collections.abc import Callable
from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.logs import get_logger
from flower_nats.model.caller import ASKED_FOR
from flower_nats.model.errors import FlowerNatsError

log = get_logger(__name__)

_NANOSECONDS = 1_000_000_000

DUPLICATE_WINDOW = 300
"""Seconds for which the broker remembers message ids. A replica that was stopped in the middle of a
write and goes on later than this could write twice; SIGSTOP of a replica is tested well below it."""

BLOB_AGE = int(ASKED_FOR) + 300
"""Seconds after which a body in transit that nobody fetched is dropped."""

STREAMS_LATELY = 15.0
"""Seconds within which the streams must have had a leader for a process to be ready: an election takes
less."""

_LOOK_EVERY = 2.0


def _stream(name: str, subject: str, replicas: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject],
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


async def watch_streams(connection: Connection, heard: Callable[[], None]) -> None:
    """Call `heard` each time that the messages' stream has shown that it is led, until cancelled.

    Without a majority of its servers a broker takes connections, and nothing else.
    """
    while True:
        try:
            # There is no such run, and only a leader knows; a stream's description anybody gives.
            await connection.next(subjects.MESSAGES_STREAM, subjects.run(0))
            heard()
        except FlowerNatsError as exc:
            log.warning("streams_without_leader", reason=str(exc))
        await asyncio.sleep(_LOOK_EVERY)
