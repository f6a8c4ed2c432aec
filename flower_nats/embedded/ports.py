"""Free ports of this machine."""

import random
import socket
from collections.abc import Iterable

# These are below the ports for outgoing connections. Otherwise such a connection could occupy a
# server's port while the server restarts.
RANGE = range(20000, 32000)

_given: set[int] = set()
"""Ports of this process's servers, which may not listen at the moment.

Some servers share their port with any other that allows sharing. If a port was given twice, each
server would get a part of the connections, and none an error."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server that does not share the port could listen on it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers do the same: connections of a former server that still close must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def reserve(ports: Iterable[int]) -> None:
    """Never return these ports from `free_ports`: the runtime's own servers use them."""
    _given.update(ports)


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface for servers that keep their ports.

    This process never returns a port twice.
    """
    wanted = (port for port in random.sample(RANGE, len(RANGE)) if port not in _given)
    free = filter(is_free, wanted)
    ports = [next(free) for _ in range(count)]
    reserve(ports)
    return ports
