"""Which other gateways have fallen silent, and may have something in their hands that nobody else knows.

Each gateway gives a sign of life three times a second, by a hint. One that is stopped, or that hangs on
a NATS server that is, gives none; a balancer moves its calls to another gateway within seven seconds
(`flower_nats.embedded.envoy`). Nor does one that was killed, but its clients hear of that at once, and
so does the broker, where it has no subscription any more.
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
"""Seconds: stock lets one pass between its last log lines and the output that ends its run."""

_GONE_AFTER = 9.0
"""Seconds after which the calls of a silent gateway are in other hands."""

_CONNECTED_AGAIN = 4.0
"""Seconds after which a gateway that had lost its NATS server has found another one."""


class GatewayLiveness:
    """The other gateways."""

    def __init__(self, connection: Connection, gateway: str) -> None:
        self._connection = connection
        self._gateway = gateway
        self._heard: dict[str, float] = {}
        self._all_heard_since = time.monotonic()
        """When this gateway began to hear all that there is to hear."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to give signs of life."""
        await self._connection.subscribe(subjects.gateway(self._gateway), _say_nothing)
        self._tasks = [
            asyncio.create_task(self._pulse_forever(), name="pulse"),
            asyncio.create_task(self._forget_dead_forever(), name="forget dead gateways"),
        ]

    async def leave(self) -> None:
        """Say that this gateway has nothing in hand any more."""
        for task in self._tasks:
            task.cancel()
        await self._connection.hint(subjects.event_gateway(self._gateway), FAREWELL)

    def silent(self) -> dict[str, float]:
        """Return the gateways that have fallen silent a moment ago, and when each was heard last."""
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
                # Unless it was heard meanwhile.
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
    """Being there is the answer."""
