"""The versions of the flwr CLI that have called lately, for people who plan an upgrade."""

import time
from collections import Counter
from collections.abc import Mapping

from flower_nats_gateway.calls.call import Call

_KEPT_SECONDS = 86_400.0
"""Seconds for which a CLI counts after its last call, because people call rarely."""

_MOST = 1_000
"""CLIs that are remembered, by address and version."""

_MOST_VERSIONS = 50
"""Most versions that are reported: a client can send any text."""


class ClisHeard:
    """The CLIs that this gateway has heard."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str], float] = {}

    def note(self, call: Call) -> None:
        """Note a call of Control."""
        one = call.client_address, call.client_version_shown
        self._heard.pop(one, None)
        self._heard[one] = time.monotonic()
        if len(self._heard) > _MOST:
            del self._heard[next(iter(self._heard))]

    def report(self) -> Mapping[str, int]:
        """Return the number of addresses per version; clients without a version are left out."""
        now = time.monotonic()
        self._heard = {one: at for one, at in self._heard.items() if now - at < _KEPT_SECONDS}
        counts = Counter(version for _, version in self._heard if version)
        return dict(counts.most_common(_MOST_VERSIONS))
