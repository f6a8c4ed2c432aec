"""The calls that are being served."""

import time
from collections import Counter

from flower_nats_gateway.calls.peers import port_of

_FLUSH_SECONDS = 0.05
"""Seconds that a transport may need to pass a finished answer to the system."""


class CallsInHand:
    """The calls that are being served, by their callers' port and address."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._by_host: Counter[str] = Counter()
        self._served: dict[str, float] = {}
        self.count = 0
        """The number of calls."""
        self.callers: set[str] | None = None
        """Ports that calls have come from, until they are forgotten; None if not recorded."""

    def begin(self, peer: str, host: str) -> None:
        """Count a call: `peer` is the other end of its connection, `host` the caller's address."""
        self.count += 1
        port = port_of(peer)
        self._calls[port] += 1
        if self.callers is not None:
            self.callers.add(port)
        self._by_host[host] += 1

    def end(self, peer: str, host: str) -> None:
        """Note that a counted call is served."""
        self.count -= 1
        port = port_of(peer)
        self._calls[port] -= 1
        if not self._calls[port]:
            del self._calls[port]
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]
        self._served[port] = time.monotonic()
        if len(self._served) > 2 * len(self._calls) + 1000:
            self._forget()

    def forget_caller(self, port: str) -> bool:
        """Forget the port of an ended connection; return whether a call had come from it."""
        if self.callers is None or port not in self.callers:
            return False
        self.callers.discard(port)
        return True

    def count_of(self, host: str) -> int:
        """Return how many an address has."""
        return self._by_host[host]

    def are_done(self, port: int) -> bool:
        """Whether a caller has no open call, and has its answers."""
        served = self._served.get(str(port), 0.0)
        return str(port) not in self._calls and time.monotonic() - served > _FLUSH_SECONDS

    def _forget(self) -> None:
        since = time.monotonic() - _FLUSH_SECONDS
        self._served = {port: at for port, at in self._served.items() if at > since}
