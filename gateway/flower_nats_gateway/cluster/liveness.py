"""Which other gateways have fallen silent, and may have log lines in hand that are not stored.

Each gateway gives a sign of life three times a second, by a hint. A stopped gateway gives none, nor
does one that hangs on a stopped NATS server. A balancer moves its calls to another gateway within
seven seconds (`flower_nats.embedded.envoy`). A killed gateway gives none either. But its clients
notice at once, and so does the broker, because its subscription ends.
"""

import asyncio
import time

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection, NobodyListens
from flower_nats.broker.members import FAREWELL
from flower_nats.model.errors import Unavailable

_PULSE = 0.3
"""Seconds between two signs of life."""

_SILENT_AFTER = 0.8
"""Seconds between a stock app's last log lines and the output that ends its run."""

_GONE_AFTER = 9.0
"""Seconds after which other gateways have the calls of a silent gateway."""

_CONNECTED_AGAIN = 4.0
"""Seconds after which a gateway that lost its NATS server has found another one."""


class GatewayLiveness:
    """The other gateways."""

    def __init__(self, connection: Connection, gateway: str) -> None:
        self._connection = connection
        self._gateway = gateway
        self._heard: dict[str, float] = {}
        self._all_heard_since = time.monotonic()
        """When this gateway began to hear all hints."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to give signs of life."""
        await self._connection.subscribe(subjects.gateway(self._gateway), _say_nothing)
        self._tasks = [
            asyncio.create_task(self._pulse_forever(), name="pulse"),
            asyncio.create_task(self._forget_dead_forever(), name="forget dead gateways"),
        ]

    async def leave(self) -> None:
        """Announce that this gateway has no calls in hand any more."""
        for task in self._tasks:
            task.cancel()
        await self._connection.hint(subjects.event_gateway(self._gateway), FAREWELL)

    def silent(self) -> dict[str, float]:
        """Return the gateways that have just fallen silent, and when each was last heard."""
        now = time.monotonic()
        return {
            gateway: heard
            for gateway, heard in self._heard.items()
            if _SILENT_AFTER < now - heard < _GONE_AFTER
        }

    async def _pulse_forever(self) -> None:
        while True:
            await self._connection.hint(subjects.event_gateway(self._gateway))
            await asyncio.sleep(_PULSE)

    async def _forget_dead_forever(self) -> None:
        while True:
            await asyncio.sleep(_PULSE)
            for gateway, heard in self.silent().items():
                silence = time.monotonic() - max(heard, self._all_heard_since)
                is_dead = silence > _CONNECTED_AGAIN and await self._is_dead(gateway)
                # Unless the gateway was heard in the meantime.
                if is_dead and self._heard.get(gateway) == heard:
                    del self._heard[gateway]

    async def _is_dead(self, gateway: str) -> bool:
        try:
            await self._connection.ask(subjects.gateway(gateway), b"", timeout=_PULSE)
        except NobodyListens:
            return True
        except Unavailable:
            pass
        return False

    def note_loss(self) -> None:
        """Note that signs of life may have been missed."""
        self._all_heard_since = time.monotonic()

    def note(self, gateway: str, sign: bytes) -> None:
        """Note a sign of life of a gateway."""
        now = time.monotonic()
        self._heard = {name: at for name, at in self._heard.items() if now - at < _GONE_AFTER}
        self._heard.pop(gateway, None)
        if gateway != self._gateway and sign != FAREWELL:
            self._heard[gateway] = now


async def _say_nothing(_question: object) -> None:
    """Send no answer: the subscription itself shows that the gateway is there."""
