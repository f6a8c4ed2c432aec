"""Which other gateways have fallen silent, and may have something in their hands that nobody else knows.

Each gateway gives a sign of life three times a second, by a hint. One that is stopped, or that hangs on
a NATS server that is, gives none; nor does one that was killed. A balancer moves its calls to another
gateway within seven seconds (`flower_nats.embedded.envoy`).
"""

import asyncio
import time

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.hints import Wakes

_PULSE = 0.3
"""Seconds between two signs of life."""

_SILENT_AFTER = 0.8
"""Seconds: stock lets one pass between its last log lines and the output that ends its run."""

_GONE_AFTER = 9.0
"""Seconds after which the calls of a silent gateway are in other hands."""

_FAREWELL = b"farewell"


class Peers:
    """The other gateways."""

    def __init__(self, connection: Connection, wakes: Wakes, gateway: str) -> None:
        self._connection = connection
        self._gateway = gateway
        self._heard: dict[str, float] = {}
        self._pulse: asyncio.Task[None] | None = None
        wakes.listen(subjects.EVENT_GATEWAY, self._on_hint)

    def start(self) -> None:
        """Begin to give signs of life."""
        self._pulse = asyncio.create_task(self._pulse_forever(), name="pulse")

    async def leave(self) -> None:
        """Say that this gateway has nothing in hand any more."""
        if self._pulse is not None:
            self._pulse.cancel()
        await self._connection.hint(subjects.event_gateway(self._gateway), _FAREWELL)

    def any_silent(self) -> bool:
        """Whether a gateway has fallen silent a moment ago."""
        now = time.monotonic()
        return any(_SILENT_AFTER < now - heard < _GONE_AFTER for heard in self._heard.values())

    async def _pulse_forever(self) -> None:
        while True:
            await self._connection.hint(subjects.event_gateway(self._gateway))
            await asyncio.sleep(_PULSE)

    def _on_hint(self, subject: str, payload: bytes) -> None:
        gateway, now = subject.removeprefix(subjects.EVENT_GATEWAY), time.monotonic()
        self._heard = {name: at for name, at in self._heard.items() if now - at < _GONE_AFTER}
        self._heard.pop(gateway, None)
        if gateway != self._gateway and payload != _FAREWELL:
            self._heard[gateway] = now
