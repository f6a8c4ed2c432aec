"""Messages as a stream holds them, read from the broker's answers."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg


@dataclass(frozen=True)
class Record:
    """A message as a stream holds it."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    time: str = ""
    """When the broker stored it, RFC 3339."""


def of_leader(message: Mapping[str, Any]) -> Record:
    """Read the answer of a stream's leader to `STREAM.MSG.GET`."""
    return Record(
        message["subject"],
        int(message["seq"]),
        base64.b64decode(message.get("data", "")),
        _parse_headers(base64.b64decode(message.get("hdrs", ""))),
        message["time"],
    )


def of_any(answer: Msg) -> Record:
    """Read the answer of any server with a copy to `DIRECT.GET`, which is the message itself."""
    headers = answer.headers or {}
    return Record(
        headers.get("Nats-Subject", ""),
        int(headers.get("Nats-Sequence", "0")),
        answer.data,
        headers,
        headers.get("Nats-Time-Stamp", ""),
    )


def _parse_headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode().split("\r\n")[1:]
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines) if key}
