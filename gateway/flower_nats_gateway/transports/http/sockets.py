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
"""Bytes of an answer that the system buffers before sending. By default it would buffer 4 MiB for
each connection, and with some hundreds of connections let all others wait for memory."""


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
            # gRPC does the same: [::] includes IPv4.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, int(port)))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except (OSError, ValueError) as exc:
        listening.close()
        raise CannotListen(f"Cannot listen on {address}: {exc}") from exc
    return listening


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def keep_alive(connection: socket.socket) -> None:
    """Make the system send empty packets on a quiet connection.

    The packets keep a held call's connection in the tables of NAT routers. Some routers drop
    connections that were quiet for 15 s. The packets also find peers that vanished silently.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def hold_little(connection: socket.socket) -> None:
    """Make the system buffer little for a slow peer. Data in transit does not count."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _LITTLE)


def reset(connection: socket.socket) -> None:
    """Make a connection end with a reset when it is closed: data in transit is dropped."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
