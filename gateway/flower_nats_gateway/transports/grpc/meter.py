"""How much of each body has come over gRPC, which reports a message only when it is complete.

The connection tells: the system counts its received bytes. All new bytes belong to the bodies that
arrive on it. If the system does not tell, a body counts when it is complete.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from itertools import count
from urllib.parse import unquote

from flower_nats.model.errors import ApiError
from flower_nats_gateway.calls.bodies import PAUSE, Body
from flower_nats_gateway.calls.body_limit import SMALL
from flower_nats_gateway.transports.notices import notice
from flower_nats_gateway.transports.open_sockets import cut_off

_LOOK_SECONDS = 0.1

_SLACK = 256 * 1024
"""Bytes that may have come over a connection besides the arriving bodies: heads, and calls that
nobody reads."""

NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_INET_DIAG_INFO = 2
_ANY_STATE = _NO_COOKIE = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_MESSAGE_BYTES = 72
"""Size of `inet_diag_msg`, which is before the attributes."""
_BYTES = struct.Struct("=QQ")
_numbers = count(1)

_AT = 120
"""Offset of `tcpi_bytes_acked` in `tcp_info`; `tcpi_bytes_received` follows it."""

_LEAST_TAKEN = 64 * 1024
"""Bytes of a waiting answer that a client must take in `PAUSE` seconds. Pings have fewer bytes."""


class Meter:
    """Measures the bodies that come to one port."""

    def __init__(self) -> None:
        self.port = 0
        """The port, as soon as it is known."""
        self._connections: dict[str, _Connection] = {}
        self._look_again: asyncio.TimerHandle | None = None

    def begin(self, body: Body, peer: str) -> None:
        """Measure a body from a peer, which has gRPC's form of name.

        A body that can only be small counts when it is complete: asking the system costs more than
        the room that it can take.
        """
        if body.longest <= SMALL:
            return
        connection = self._connections.get(peer)
        if connection is None:
            connection = self._connections[peer] = _Connection(peer, self.port)
        connection.bodies.append(body)
        if self._look_again is None:
            self._look_later()

    def end(self, body: Body, peer: str, size: int) -> None:
        """Note that a body is complete or has ended. Raises `ApiError` (BODY_TOO_LONG)."""
        connection = self._connections.get(peer)
        if connection is not None:
            # A part of the complete body was counted before. The rest was received too, and belongs
            # to no other body.
            connection.received += max(0, size - body.size)
            if body in connection.bodies:
                connection.bodies.remove(body)
            if not connection.bodies:
                del self._connections[peer]
        body.grow(size - body.size)

    def watch_taking(self, peer: str) -> "Watch":
        """Cut a peer's connection off if it takes next to nothing, until the watch is cancelled."""
        return Watch(peer, self.port)

    def _look_later(self) -> None:
        self._look_again = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._look_again = None
        for connection in list(self._connections.values()):
            connection.look(self.port)
        if self._connections:
            self._look_later()


class _Connection:
    def __init__(self, peer: str, port: int) -> None:
        self.bodies: list[Body] = []
        self._peer = peer
        self.received = _received(peer, port) or 0
        """Received bytes that are already counted."""

    def look(self, port: int) -> None:
        """Count new bytes for the body that has the most bytes still to come."""
        received = _received(self._peer, port)
        arriving = [one for one in self.bodies if one.is_arriving]
        if received is None or received <= self.received or not arriving:
            return
        more, self.received = received - self.received, received
        body = max(arriving, key=lambda one: one.longest - one.size)
        if body.size + more > body.longest + _SLACK:
            body.end(body.too_long())
        with suppress(ApiError):
            body.grow(more)


class Watch:
    """Checks whether a peer takes the bytes sent to it, after some time: most peers are quick."""

    def __init__(self, peer: str, port: int) -> None:
        self._peer, self._port = peer, port
        self._taken: int | None = None
        self._look_later(PAUSE / 2)

    def cancel(self) -> None:
        """Stop checking."""
        self._again.cancel()

    def _look_later(self, seconds: float) -> None:
        self._again = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        counts = traffic(self._peer, self._port)
        if counts is None:
            return
        if self._taken is not None and counts[0] - self._taken < _LEAST_TAKEN:
            notice(self._peer.rpartition(":")[0], "answer_not_taken", seconds=PAUSE)
            cut_off({int(self._peer.rpartition(":")[2])}, {self._port})
            return
        self._taken = counts[0]
        self._look_later(PAUSE)


def _received(peer: str, port: int) -> int | None:
    counts = traffic(peer, port)
    return None if counts is None else counts[1]


def traffic(peer: str, port: int) -> tuple[int, int] | None:
    """Return how many bytes a peer has taken from a port of ours over its connection, and how many it
    has sent; None if that is unknown."""
    netlink = _netlink()
    host, _, peer_port = unquote(peer).rpartition(":")
    host = host.removeprefix("ipv4:").removeprefix("ipv6:").strip("[]")
    if netlink is None or not peer_port.isdecimal():
        return None
    try:
        local, remote = _local_address(host), ip_address(host).packed
        family = socket.AF_INET if len(remote) == 4 else socket.AF_INET6
        ends = struct.pack("!HH16s16s", port, int(peer_port), local, remote)
        request = (
            struct.pack(
                "=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0, _ANY_STATE
            )
            + ends
            + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        )
        size = _HEADER.size + len(request)
        number = next(_numbers) & _ANY_STATE
        netlink.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, number, 0) + request)
        # Late answers to earlier questions are skipped.
        while _HEADER.unpack_from(answer := netlink.recv(4096))[3] != number:
            pass
        return bytes_of(answer)
    except (OSError, ValueError):
        return None


def bytes_of(answer: bytes) -> tuple[int, int] | None:
    """Return how many bytes a connection's peer has taken and sent, from the system's answer."""
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    at = _HEADER.size + _MESSAGE_BYTES
    while at + _ATTRIBUTE.size <= len(answer):
        length, name = _ATTRIBUTE.unpack_from(answer, at)
        if name == _INET_DIAG_INFO and length >= _ATTRIBUTE.size + _AT + _BYTES.size:
            taken, received = _BYTES.unpack_from(answer, at + _ATTRIBUTE.size + _AT)
            return taken, received
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return None


@lru_cache(maxsize=1)
def _netlink() -> socket.socket | None:
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        netlink.settimeout(0.0)
    except (OSError, AttributeError):
        return None
    return netlink


@lru_cache(maxsize=4096)
def _local_address(host: str) -> bytes:
    """Return our address from which the system sends to a host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return ip_address(probe.getsockname()[0]).packed
