"""How many connections one client address may have.

gRPC accepts connections by itself. So all connections are counted regularly, and the newest ones
above the limit are cut off. A stock client connects again after a pause.
"""

import asyncio
import socket
from collections import Counter, defaultdict
from collections.abc import Collection
from contextlib import suppress

from flower_nats_gateway.calls.balancers import Balancers
from flower_nats_gateway.calls.peers import host_of
from flower_nats_gateway.transports.notices import notice
from flower_nats_gateway.transports.open_sockets import established, open_sockets, peer_of

_EVERY = 2.0
"""Seconds between two counts. A count of 10,000 connections takes some 30 ms."""

_MAPPED = "::ffff:"
"""The prefix of an IPv4 address in a socket for both versions."""


class AddressLimit:
    """Counts the connections of each address. Trusted balancers and loopback (a tunnel has many
    clients) have no limit."""

    def __init__(self, limit: int, balancers: Balancers) -> None:
        """`limit` is the number per address, 0 for any number."""
        self._limit = limit
        self._balancers = balancers
        self._counted: Counter[str] = Counter()
        self._known: set[tuple[str, int]] = set()

    def takes(self, host: str) -> bool:
        """Whether one more connection of an address is accepted; the call counts it."""
        name = self._name(host)
        if not (self._limit and name):
            return True
        if self._counted[name] >= self._limit:
            notice(name, "connections_refused", limit=self._limit)
            return False
        self._counted[name] += 1
        return True

    async def watch(self, ports: Collection[int]) -> None:
        """Count the connections of these ports, and cut off excess ones, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            if self._limit:
                await asyncio.to_thread(self.count, ports)

    def count(self, ports: Collection[int]) -> None:
        """Count once."""
        found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for host, port in established(ports):
            found[host].append((host, port))
        counted, surplus = Counter[str](), set[tuple[str, int]]()
        for host, peers in found.items():
            name = self._name(host)
            counted[name] = len(peers)
            if name and len(peers) > self._limit:
                notice(name, "connections_refused", limit=self._limit, connections=len(peers))
                peers.sort(key=lambda peer: peer not in self._known)
                surplus.update(peers[self._limit :])
        self._known = {peer for peers in found.values() for peer in peers} - surplus
        self._counted = counted
        if surplus:
            _cut_off(surplus, ports)

    def _name(self, host: str) -> str:
        """Return the address in its counted form, empty if it has no limit."""
        name = host_of(f"{host}:0")
        return "" if self._balancers.are_at(name) else name


def _cut_off(peers: Collection[tuple[str, int]], ports: Collection[int]) -> None:
    for one in open_sockets(ports):
        host, port = peer_of(one)
        if (host.removeprefix(_MAPPED), port) in peers:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
