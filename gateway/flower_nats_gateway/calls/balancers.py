"""The balancers that are trusted to send their clients' addresses.

A gateway behind a balancer sees the balancer's address. The client's own address is in a header.
Anybody can send this header, so it counts only from an address that the gateway trusts.
"""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from flower_nats.logs import get_logger
from flower_nats.wire.request_id import CLIENT_ADDRESS
from flower_nats_gateway.calls.peers import numeric_host

log = get_logger(__name__)

_LOOK_UP_SECONDS = 5.0
"""Seconds between two look-ups of balancers' names. Until a balancer's new address is found, all
its clients count as one client."""


class Balancers:
    """Finds the client's address of a call."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        """`trusted` has addresses, networks, and names of balancers."""
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: list[str] = []
        self._found: dict[str, frozenset[IPv4Address | IPv6Address]] = {}
        self._known: dict[str, bool] = {}
        self._missed: set[str] = set()
        for one in trusted:
            try:
                self._networks.append(ip_network(one, strict=False))
            except ValueError:
                self._names.append(one)

    def client_of(self, peer: str, metadata: Mapping[str, str | bytes]) -> str:
        """Return the address of the client behind a peer, or of the peer itself."""
        host = numeric_host(peer)
        if not self.are_at(host):
            return host
        said = metadata.get(CLIENT_ADDRESS, "")
        try:
            address = ip_address(said.decode("latin-1") if isinstance(said, bytes) else said)
        except ValueError:
            return host
        return str(getattr(address, "ipv4_mapped", None) or address)

    def are_at(self, host: str) -> bool:
        """Whether this is the address of a trusted balancer."""
        if not (self._networks or self._found):
            return False
        known = self._known.get(host)
        if known is None:
            if len(self._known) > 10_000:
                self._known.clear()
            known = self._known[host] = self._are_at(host)
        return known

    def _are_at(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in one for one in (*self._networks, *self._found.values()))

    async def look_up_forever(self) -> None:
        """Resolve the names regularly, until cancelled."""
        while self._names:
            for name in self._names:
                await self._look_up(name)
            await asyncio.sleep(_LOOK_UP_SECONDS)
        await asyncio.Event().wait()

    async def _look_up(self, name: str) -> None:
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(
                name, None, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as exc:
            # The earlier addresses still count, because the DNS server may be away.
            if name not in self._missed:
                log.warning("balancer_not_found", name=name, reason=str(exc))
            self._missed.add(name)
            return
        self._missed.discard(name)
        found = frozenset(ip_address(str(answer[4][0])) for answer in answers)
        if found != self._found.get(name):
            self._found[name] = found
            self._known.clear()
