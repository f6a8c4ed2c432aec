"""The other end of a connection, as transports name it."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote


def port_of(peer: str) -> str:
    """Return the port that a peer calls from."""
    return peer.rpartition(":")[2]


@lru_cache(maxsize=16_384)
def host_of(peer: str) -> str:
    """Return the address of a peer, the same for both wires; empty for a peer on this machine.

    A peer on this machine is a balancer, a tunnel or a SuperExec, which calls for many. gRPC writes
    `ipv4:10.0.0.1:2000` and `ipv6:%5B::1%5D:2000`, HTTP `10.0.0.1:2000` and `::1:2000`.
    """
    host = _host(peer)
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return "" if address.is_loopback else str(address)


@lru_cache(maxsize=16_384)
def numeric_host(peer: str) -> str:
    """Return the address of a peer as it is."""
    return _host(peer).removeprefix("::ffff:")


def _host(peer: str) -> str:
    host = unquote(peer).rpartition(":")[0]
    return host.removeprefix("ipv4:").removeprefix("ipv6:").strip("[]")


class Origins:
    """The clients behind connections that this process makes to itself."""

    def __init__(self) -> None:
        self._by_port: dict[str, str] = {}

    def note(self, port: int, peer: str) -> None:
        """Record the client behind a connection from one of our own ports."""
        self._by_port[str(port)] = peer

    def forget(self, port: int) -> None:
        """Note that the connection has ended."""
        self._by_port.pop(str(port), None)

    def of(self, peer: str) -> str:
        """Return the peer behind a peer, or the peer itself."""
        return self._by_port.get(port_of(peer), peer)
