"""Copies of a stream, as `nats stream backup` and `nats stream restore` make them.

nats-server sends a stream in pieces, in its own format, and restores from them. A copy is complete,
of one moment, and has the sequence of each message. Other processes may write at the same time.
"""

import asyncio
import json
from typing import Any, BinaryIO

from nats.aio.msg import Msg

from flower_nats.broker.connection import Connection
from flower_nats.broker.requests import STATUS
from flower_nats.broker.streams import replicas_for
from flower_nats.model.errors import FlowerNatsError, Unavailable

_PIECE_BYTES = 128 * 1024
"""Bytes of one piece of a copy: a message of this size fits every server."""

_SILENCE = 30.0
"""Seconds without a piece, or without an answer to a piece, after which a copy fails."""

_WHOLE = "204"
"""The status of the last, empty piece of a complete copy. Another status tells an error."""


class CopyRefused(FlowerNatsError):
    """The broker does not give a copy, or does not take it."""


async def save_stream(connection: Connection, stream: str, file: BinaryIO) -> dict[str, Any]:
    """Write a copy of a stream to a file, and return the facts that `load_stream` needs.

    Raises CopyRefused and Unavailable.
    """
    inbox = connection.new_inbox()
    pieces: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await connection.subscribe(inbox, pieces.put)
    try:
        request = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": _PIECE_BYTES}
        said = await _ask(connection, f"$JS.API.STREAM.SNAPSHOT.{stream}", json.dumps(request))
        while True:
            piece = await _next(pieces, stream)
            if not piece.data:
                _check_whole(piece, stream)
                return {"config": said["config"], "state": said["state"]}
            file.write(piece.data)
            # The server sends only a few pieces ahead.
            if piece.reply:
                await connection.acknowledge(piece)
    finally:
        await subscription.unsubscribe()


async def load_stream(connection: Connection, known: dict[str, Any], file: BinaryIO) -> None:
    """Create a stream, which must not exist, from a copy.

    The stream gets as many replicas as the servers allow. Raises CopyRefused and Unavailable; after
    an error there is no partial stream.
    """
    config = {**known["config"], "num_replicas": replicas_for(connection)}
    stream = config["name"]
    request = json.dumps({"config": config, "state": known["state"]})
    said = await _ask(connection, f"$JS.API.STREAM.RESTORE.{stream}", request)
    goal = said["deliver_subject"]
    while piece := file.read(_PIECE_BYTES):
        await _ask(connection, goal, piece)
    await _ask(connection, goal, b"")


async def remove_stream(connection: Connection, stream: str) -> None:
    """Remove a stream with its messages. Raises CopyRefused and Unavailable."""
    await _ask(connection, f"$JS.API.STREAM.DELETE.{stream}", b"")


async def _ask(connection: Connection, subject: str, body: str | bytes) -> dict[str, Any]:
    """Ask once, because a step of a copy must not be repeated."""
    data = body.encode() if isinstance(body, str) else body
    answer = await connection.ask(subject, data, timeout=_SILENCE)
    said: dict[str, Any] = json.loads(answer.data) if answer.data else {}
    if "error" in said:
        raise CopyRefused(f"NATS refuses {subject}: {said['error'].get('description')}.")
    return said


async def _next(pieces: "asyncio.Queue[Msg]", stream: str) -> Msg:
    try:
        async with asyncio.timeout(_SILENCE):
            return await pieces.get()
    except TimeoutError as exc:
        raise Unavailable(f"NATS sends no more of {stream} for {_SILENCE:.0f} s") from exc


def _check_whole(last: Msg, stream: str) -> None:
    status = (last.headers or {}).get(STATUS, _WHOLE)
    if status != _WHOLE:
        said = (last.headers or {}).get("Description", "")
        raise CopyRefused(f"NATS broke off the copy of {stream}: {status} {said}.")
