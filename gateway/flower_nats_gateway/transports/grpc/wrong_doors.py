"""Logs clients that connect to a gRPC port and do not speak gRPC.

gRPC disconnects such a client and reports nothing, neither to the client nor to us. But Linux
reports the bytes of each ended connection. A connection with bytes but without a call came from a
client that speaks HTTP/1.1, or TLS to a port without TLS, or the reverse. Its version of flwr is
unknown, because gRPC has read and dropped the bytes that would tell.

If a process of ours looked at the first bytes of each connection, it could serve such clients. But
it would have to forward every byte of gRPC. With a server that does nothing itself, that takes 16 %
more computing for a call of 1 KB, and 23 % for one of 50 MB.
"""

import asyncio
import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_address

from flower_nats_gateway.calls.balancers import Balancers
from flower_nats_gateway.calls.in_hand import CallsInHand
from flower_nats_gateway.transports.grpc.meter import NETLINK_SOCK_DIAG, bytes_of
from flower_nats_gateway.transports.notices import notice

_DESTROYED = 1 | 4
"""The groups for ended TCP connections, over IPv4 and IPv6."""

_ENDS = struct.Struct("!HH16s16s")
_ENDS_AT = 20
"""Offset of the ports and addresses in a message: after the header and four more bytes."""

_FAMILY_AT = 16

_MAPPED = bytes(10) + b"\xff\xff"
"""The prefix of an IPv4 address in a socket for both versions."""

_LONGEST = 8192
_AT_ONCE = 256
"""Connections that are handled in one turn of the event loop."""

_GREETING = 50
"""Bytes that gRPC sends by itself on a connection without TLS. To a gRPC client it sends more."""

_MERELY_OPENED = 1
"""The byte count of a connection without data: its end counts."""

_REMEDY = (
    "A client over HTTP (SuperNodes of flwr 1.40 and newer, SuperExecs of 1.35 and newer) needs "
    "the HTTP port, {http}. A client over gRPC must {speak}."
)
_SPEAK = {
    False: "use no TLS here: --insecure",
    True: "use TLS here: --root-certificates",
}


class WrongDoors:
    """Watches connections of gRPC ports end."""

    def __init__(self, http_address: str, in_hand: CallsInHand, balancers: Balancers) -> None:
        """`http_address` is the address for clients over HTTP; empty for none."""
        self._http = http_address.rpartition(":")[2] or "which is off here"
        self._in_hand = in_hand
        self._balancers = balancers
        self._netlink: socket.socket | None = None
        self._ports: Mapping[int, bool] = {}

    def start(self, ports: Mapping[int, bool]) -> None:
        """Watch, if the system allows it; `ports` says for each port whether it uses TLS."""
        try:
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
            netlink.bind((0, _DESTROYED))
        except (OSError, AttributeError):
            return
        netlink.setblocking(False)
        self._netlink, self._ports = netlink, ports
        self._in_hand.callers = set()
        asyncio.get_running_loop().add_reader(netlink, self._read)

    def stop(self) -> None:
        """Stop watching."""
        if self._netlink is not None:
            asyncio.get_running_loop().remove_reader(self._netlink)
            self._netlink.close()

    def _read(self) -> None:
        assert self._netlink is not None
        for _ in range(_AT_ONCE):
            try:
                message = self._netlink.recv(_LONGEST)
            except BlockingIOError:
                return
            except OSError:
                continue  # More connections have ended at once than the system can queue.
            if len(message) >= _ENDS_AT + _ENDS.size:
                self._look(message)

    def _look(self, message: bytes) -> None:
        port, peer_port, _, raw = _ENDS.unpack_from(message, _ENDS_AT)
        speaks_tls = self._ports.get(port)
        counts = bytes_of(message)
        if speaks_tls is None or not peer_port or counts is None:
            return
        had_call = self._in_hand.forget_caller(str(peer_port))
        taken, received = counts
        if had_call or received <= _MERELY_OPENED or (taken > _GREETING and not speaks_tls):
            return
        host = _host(raw, message[_FAMILY_AT])
        if not self._balancers.are_at(host):
            remedy = _REMEDY.format(http=self._http, speak=_SPEAK[speaks_tls])
            notice(host, "connection_without_a_call", port=port, bytes=received, remedy=remedy)


def _host(raw: bytes, family: int) -> str:
    if family == socket.AF_INET:
        raw = raw[:4]
    elif raw.startswith(_MAPPED):
        raw = raw[len(_MAPPED) :]
    return str(ip_address(raw))
