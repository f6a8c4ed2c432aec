"""The streams of the runtime, and what they promise on the servers at hand."""

from collections.abc import Mapping
from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection

_NANOSECONDS = 1_000_000_000

DUPLICATE_WINDOW = 300
"""Seconds for which the broker remembers message ids. A replica that was stopped in the middle of a
write and goes on later than this could write twice; SIGSTOP of a replica is tested well below it."""

BLOB_AGE = 300
"""Seconds after which a body in transit that nobody fetched is dropped."""


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


async def replicas_for(connection: Connection) -> int:
    """Return how many copies the cluster at hand can hold: 3 where there are three servers."""
    servers = len(connection.server_info.get("connect_urls") or [])
    clustered = bool(connection.server_info.get("cluster"))
    return 3 if clustered and servers >= 3 else 1


async def ensure_streams(connection: Connection, replicas: int | None = None) -> None:
    """Create the streams, or bring them to today's configuration. Any replica may do it any time."""
    count = replicas if replicas is not None else await replicas_for(connection)
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


async def stream_state(connection: Connection) -> Mapping[str, Any]:
    """Return per stream its replicas, messages and bytes, for status and metrics."""
    report: dict[str, Any] = {}
    for name in (
        subjects.MESSAGES_STREAM,
        subjects.OBJECTS_STREAM,
        subjects.LOGS_STREAM,
        subjects.BLOBS_STREAM,
    ):
        info = await connection.info(name)
        report[name] = {
            "replicas": info["config"]["num_replicas"],
            "messages": info["state"]["messages"],
            "bytes": info["state"]["bytes"],
        }
    return report
