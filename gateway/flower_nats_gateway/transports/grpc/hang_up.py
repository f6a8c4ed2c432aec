"""How a gateway takes leave of those who are connected to it.

gRPC's own way to stop a server answers CANCELLED to calls that arrive before their callers have heard
of it, and stock clients end with that. A connection that is closed shows as UNAVAILABLE, and they call
again.
"""

import asyncio
import os
import socket
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from flower_nats_gateway.calls.in_hand import CallsInHand

_LOOK_SECONDS = 0.05


async def hang_up(ports: Collection[int], in_hand: CallsInHand, within: float) -> None:
    """Listen no more on these ports, and close each connection once nothing of it is in hand.

    What is still in hand after `within` seconds is cut off.
    """
    deadline = time.monotonic() + within
    while True:
        out_of_time = time.monotonic() >= deadline
        open_ones = 0
        for one in _sockets(ports):
            if _is_listening(one) or out_of_time or in_hand.are_done(_caller(one)):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            else:
                open_ones += 1
        if not open_ones:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _sockets(ports: Collection[int]) -> Iterator[socket.socket]:
    """Go through this process's sockets, which gRPC does not give us, that belong to these ports."""
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # It may have been closed since it was listed.
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and _port(one) in ports:
                    yield one


def _port(one: socket.socket) -> int:
    port: int = one.getsockname()[1]
    return port


def _is_listening(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _caller(one: socket.socket) -> int:
    """Return the port that the other end has, 0 if it has gone."""
    try:
        port: int = one.getpeername()[1]
    except OSError:
        return 0
    return port
