"""Sockets as the system sees them: listening, kept alive, reset."""

import socket
import struct
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

from flower_nats.health import CannotListen

_BACKLOG = 4096

_PROBE_SECONDS = 10
_PROBES = 3
"""Probes without an answer after which a connection is dead."""

_RESET = struct.pack("ii", 1, 0)

_LITTLE = 256 * 1024
"""Bytes of an answer that the system takes before their turn to be sent. It would take 4 MiB of each
connection by itself, and with some hundreds of them let all others wait for memory."""


def listen(address: str) -> socket.socket:
    """Listen on `host:port`, without blocking. Raises `CannotListen`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Replicas on one host may share a port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # As gRPC does: [::] is for IPv4 as well.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, int(port)))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except (OSError, ValueError) as exc:
        listening.close()
        raise CannotListen(f"Cannot listen on {address}: {exc}") from exc
    return listening


def is_loopback(host: str) -> bool:
    """Whether an address is one at which a machine reaches itself alone."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def keep_alive(connection: socket.socket) -> None:
    """Have the system send empty packets on a quiet connection.

    They keep a held call's connection in the tables of NAT routers, of which the most forgetful drop
    what was quiet for some 15 s. They also find peers that vanished without a word.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def hold_little(connection: socket.socket) -> None:
    """Have the system hold little of what a peer does not take. What is on its way does not count."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _LITTLE)


def reset(connection: socket.socket) -> None:
    """Have a connection end with a reset when it is closed: whatever is on its way is dropped."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
