"""The sockets of this process, which gRPC does not give us."""

import os
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress


def open_sockets(ports: Collection[int]) -> Iterator[socket.socket]:
    """Go through this process's sockets that belong to these ports; each is lent for one turn."""
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # It may have been closed since it was listed.
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and _port(one) in ports:
                    yield one


def is_listening(one: socket.socket) -> bool:
    """Whether a socket is there to take connections."""
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def peer_of(one: socket.socket) -> tuple[str, int]:
    """Return the address and the port of the other end, nothing and 0 if it has gone."""
    try:
        host, port = one.getpeername()[:2]
    except OSError:
        return "", 0
    return host, port


def _port(one: socket.socket) -> int:
    port: int = one.getsockname()[1]
    return port
