"""Reading the body of a request, and sending that of an answer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats_gateway.transports.http.connection import Connection

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

PAUSE = 60.0
"""Seconds without a byte of a body after which its connection counts as dead."""

_PIECE = 256 * 1024
"""Bytes that are handed to a connection at once, so that a slow reader does not fill our memory."""


class ClientGone(Exception):
    """The client has closed its connection, or sends no more."""


async def read(receive: Receive, longest: int, connection: Connection) -> bytes:
    """Return the whole body, also that of a client which has sent it and gone.

    Raises `ClientGone`, or `ApiError` (BODY_TOO_LONG) if it has more than `longest` bytes.
    """
    if connection.has_request:  # Which saves a timer.
        return await _read(receive, longest, connection, lambda: None)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PAUSE) as patience:
            return await _read(
                receive, longest, connection, lambda: patience.reschedule(loop.time() + PAUSE)
            )
    except TimeoutError as exc:
        raise ClientGone from exc


async def _read(
    receive: Receive, longest: int, connection: Connection, on_piece: Callable[[], None]
) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        piece, more = _piece(await receive(), connection)
        size += len(piece)
        if size > longest:
            text = f"The body has more than {longest} bytes."
            raise ApiError(ErrorCode.BODY_TOO_LONG, text, text)
        pieces.append(piece)
        if not more:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        on_piece()


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
    if len(body) <= _PIECE:
        await send({"type": "http.response.body", "body": body})
        return
    view = memoryview(body)
    try:
        for at in range(0, len(body), _PIECE):
            more = at + _PIECE < len(body)
            async with asyncio.timeout(PAUSE):
                await send(
                    {
                        "type": "http.response.body",
                        "body": view[at : at + _PIECE],
                        "more_body": more,
                    }
                )
    except TimeoutError as exc:
        raise ClientGone from exc
