"""Restarts a NATS server that still refuses to store although there is room.

After a full disk, or too few file descriptors, a nats-server refuses the stream that it could not
write, or turns JetStream off. This lasts until the server is restarted.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flower_nats.broker.connection import Connection, NoRoom
from flower_nats.broker.storage import server_figures
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError

log = get_logger(__name__)

_LOOK_EVERY = 5.0
"""Seconds between two looks."""

_ROOM = 32 * 1024**2
"""Bytes that must be free: a server that is restarted on a full disk would fail again."""

_STOP_GRACE = 5.0
"""Seconds that a server gets to end. All that it has acknowledged is on disk."""

_BACK_WITHIN = 20.0
"""Seconds to wait for a restarted server before the next one is ended."""

_BACK_POLL = 0.5

Figures = Mapping[str, Mapping[str, Any]]
"""What each server reports of its JetStream, by the server's name."""


class BrokerCare:
    """Ends the NATS servers of this machine that need a restart; their supervisor restarts them."""

    def __init__(self, servers: Sequence[NatsServer], disk: Path) -> None:
        self._servers = servers
        self._disk = disk
        self._suspects: list[NatsServer] = []

    async def run(self) -> None:
        """Look, until cancelled."""
        connection: Connection | None = None
        try:
            while connection is None:
                connection = await self._connect()
            trials = StreamTrials(connection)
            while True:
                await asyncio.sleep(_LOOK_EVERY)
                await trials.look()
                try:
                    await self._mend(connection, trials)
                except (FlowerNatsError, OSError) as exc:
                    log.warning("broker_care_postponed", reason=str(exc))
        finally:
            if connection is not None:
                await connection.close()

    async def _connect(self) -> Connection | None:
        try:
            return await Connection.connect([one.url for one in self._servers], "flower-nats up")
        except FlowerNatsError as exc:
            log.warning("broker_care_postponed", reason=str(exc))
            await asyncio.sleep(_LOOK_EVERY)
            return None

    async def _mend(self, connection: Connection, trials: StreamTrials) -> None:
        """Restart servers that needed it at the last look too, one after the other."""
        suspects, self._suspects = self._suspects, []
        if not self._has_room():
            return
        figures = await self._figures(connection)
        turned_off = [one for one in self._servers if figures.get(one.server_name) == {}]
        self._suspects = turned_off or await self._refusing(connection, trials, figures)
        for server in [one for one in self._suspects if one in suspects]:
            log.warning(
                "broker_restarted",
                process=server.name,
                streams=trials.reasons,
                meaning="It still refuses to store, although there is room.",
            )
            await server.stop(_STOP_GRACE)
            await self._until_back(server, connection)

    async def _until_back(self, server: NatsServer, connection: Connection) -> None:
        deadline = time.monotonic() + _BACK_WITHIN
        while time.monotonic() < deadline:
            await asyncio.sleep(_BACK_POLL)
            if (await self._figures(connection)).get(server.server_name):
                return

    async def _figures(self, connection: Connection) -> Figures:
        return await server_figures(connection, {one.server_name for one in self._servers})

    def _has_room(self) -> bool:
        return shutil.disk_usage(self._disk).free >= _ROOM

    async def _refusing(
        self, connection: Connection, trials: StreamTrials, figures: Figures
    ) -> list[NatsServer]:
        """Return the server that keeps a stream from storing, if there is one."""
        for stream, failure in trials.failures.items():
            if not isinstance(failure, NoRoom):
                return await self._leader(connection, stream)
        if trials.failures:
            return self._too_narrow(figures)
        return []

    def _too_narrow(self, figures: Figures) -> list[NatsServer]:
        """Return servers whose storage limit was set when the disk had less room."""

        def limit(server: NatsServer) -> int | None:
            said = figures.get(server.server_name, {}).get("config", {}).get("max_storage")
            return None if said is None else int(said)

        return [
            server
            for server in self._servers
            if (now := limit(server)) is not None and server.limit() - now > _ROOM
        ]

    async def _leader(self, connection: Connection, stream: str) -> list[NatsServer]:
        if len(self._servers) == 1:
            return list(self._servers)
        leader = (await connection.info(stream)).get("cluster", {}).get("leader")
        return [one for one in self._servers if one.server_name == leader]
