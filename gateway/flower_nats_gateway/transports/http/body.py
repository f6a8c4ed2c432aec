"""Reading the body of a request, and sending that of an answer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from io import BytesIO
from typing import Any

from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable
from flower_nats_gateway.calls.answers import LargeAnswer
from flower_nats_gateway.calls.bodies import PAUSE, Body
from flower_nats_gateway.transports.http.connection import Connection

log = get_logger(__name__)

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

PIECE = 256 * 1024
"""Bytes that are passed to a connection at once, so that a slow reader does not fill our memory."""


_JOINED = 16 * 1024 * 1024
"""Bytes of pieces that are joined at once. A larger body grows without a copy, because the
allocator maps it singly (`process.allocator`). If it was joined at its end, it would be in memory
twice."""


class ClientGone(Exception):
    """The client has closed its connection, or sends no more."""


async def read(receive: Receive, body: Body, connection: Connection) -> bytes:
    """Return a whole body, also from a client that has left after sending it.

    Raises `ClientGone`, or `ApiError` if the body is ended before or is too long.
    """
    if connection.has_request:  # This saves a timer.
        return await _read(receive, body, connection)
    return await body.receive(_read(receive, body, connection))


async def _read(receive: Receive, body: Body, connection: Connection) -> bytes:
    pieces: list[bytes] = []
    size, whole = 0, BytesIO()
    while True:
        piece, more = _piece(await receive(), connection)
        body.grow(len(piece))
        pieces.append(piece)
        size += len(piece)
        if not more:
            break
        if size >= _JOINED:
            whole.write(b"".join(pieces))
            pieces.clear()
            size = 0
    if whole.tell():
        whole.writelines(pieces)
        return whole.getvalue()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _piece(event: Event, connection: Connection) -> tuple[bytes, bool]:
    if event["type"] == "http.request":
        return event["body"], event["more_body"]
    rest = connection.unread()
    if rest is None:
        raise ClientGone
    return rest, False


async def send_body(send: Send, body: bytes) -> None:
    """Send the body of an answer, as fast as its reader takes it.

    Raises `ClientGone` if the reader takes nothing for `PAUSE` seconds.
    """
    if len(body) <= PIECE:
        await send({"type": "http.response.body", "body": body})
        return
    await _send_pieces(send, body, ends=True)


async def send_large_body(send: Send, answer: LargeAnswer) -> None:
    """Send the body of an answer as it is read from the broker, as fast as its reader takes it.

    Raises `ClientGone` as `send_body` does, and if the rest cannot be read, because it is too late
    for a refusal.
    """
    left = len(answer)
    try:
        async with aclosing(answer.stream()) as pieces:
            async for piece in pieces:
                left -= len(piece)
                await _send_pieces(send, piece, ends=left == 0)
    except Unavailable as exc:
        log.warning("answer_broken_off", bytes_left=left, reason=exc.detail)
        raise ClientGone from exc


async def _send_pieces(send: Send, body: bytes, *, ends: bool) -> None:
    view = memoryview(body)
    for at in range(0, len(body), PIECE):
        await send_piece(send, view[at : at + PIECE], more=not ends or at + PIECE < len(body))


async def send_piece(send: Send, piece: bytes | memoryview, *, more: bool = True) -> None:
    """Send a piece of a body, once its reader has taken the pieces before. Raises `ClientGone`."""
    try:
        async with asyncio.timeout(PAUSE):
            await send({"type": "http.response.body", "body": piece, "more_body": more})
    except TimeoutError as exc:
        raise ClientGone from exc
