"""Ports of this machine that nobody listens on."""

import random
import socket
from collections.abc import Iterable

# Below the ports that systems give to outgoing connections, one of which could otherwise sit on a
# server's port when the server comes back.
RANGE = range(20000, 32000)

_given: set[int] = set()
"""Ports of servers of this process, which may not listen yet, or not at the moment.

Some servers share their port with any other that allows sharing: of a port given twice, each would
get a part of the connections, and nobody an error."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port, even one that does not share it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, to pass over connections of a former server that are still closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def reserve(ports: Iterable[int]) -> None:
    """Never give these ports out: the runtime's own servers use them."""
    _given.update(ports)


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface for servers that keep them for good.

    None is given twice in the life of this process.
    """
    wanted = (port for port in random.sample(RANGE, len(RANGE)) if port not in _given)
    free = filter(is_free, wanted)
    ports = [next(free) for _ in range(count)]
    reserve(ports)
    return ports
