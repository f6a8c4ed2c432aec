"""Ports of this machine that nobody listens on."""

import random
import socket

# Below the ports that systems give to outgoing connections, one of which could otherwise sit on a
# server's port when the server comes back.
_RANGE = range(20000, 32000)


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


def free_ports(count: int) -> list[int]:
    """Return different ports of the loopback interface for servers that keep them for good."""
    free = (port for port in random.sample(_RANGE, len(_RANGE)) if is_free(port))
    return [next(free) for _ in range(count)]
