"""Warns before room runs out: on this machine's disk, and under the broker's limits."""

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flower_nats.broker.connection import Connection
from flower_nats.broker.storage import storage
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label
from flower_nats.model.errors import FlowerNatsError
from flower_nats.room import Room, RoomTrend

log = get_logger(__name__)

_LOOK_EVERY = 30.0
"""Seconds between two looks."""

_FULL = 32 * 1024 * 1024
"""Bytes: with less, PostgreSQL cannot begin another file of its log, of 16 MB."""

_TELL_EVERY = 600.0
"""Seconds between two log lines about a place where room is low."""


class RoomWatch:
    """Watches every place for data that this superlink can see."""

    def __init__(self, connection: Connection, disk: Path | None) -> None:
        self._connection = connection
        self._disk = disk
        self._trends: dict[str, RoomTrend] = {}
        self._rooms: Mapping[str, Room] = {}
        self._told: dict[str, float] = {}

    @property
    def is_full(self) -> bool:
        """Whether this machine's disk is full at present."""
        if self._disk is None:
            return False
        with suppress(OSError):
            return shutil.disk_usage(self._disk).free < _FULL
        return False

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await self.look()
            for place, room in self._rooms.items():
                self._tell(place, room)
            await asyncio.sleep(_LOOK_EVERY)

    async def look(self) -> None:
        """Look once."""
        seen: dict[str, tuple[int, int]] = {}
        if self._disk is not None:
            try:
                usage = await asyncio.to_thread(shutil.disk_usage, self._disk)
                seen["disk"] = usage.free, usage.total
            except OSError as exc:
                log.warning("disk_not_looked_at", disk=str(self._disk), reason=str(exc))
        try:
            for place, (used, limit) in (await storage(self._connection)).items():
                seen[place] = max(0, limit - used), limit
        except FlowerNatsError as exc:
            log.warning("broker_room_not_looked_at", reason=str(exc))
        self._rooms = {
            place: self._trends.setdefault(place, RoomTrend()).note(*now)
            for place, now in seen.items()
        }

    def report(self) -> dict[str, dict[str, Any]]:
        """Return the last observation of each place."""
        return {
            place: {**asdict(room), "is_low": room.is_low} for place, room in self._rooms.items()
        }

    def metrics(self) -> list[Metric]:
        """Return the same as numbers."""

        def numbers(name: str, meaning: str, of: Callable[[Room], float | None]) -> Metric:
            told = {place: of(room) for place, room in self._rooms.items()}
            values = {place: value for place, value in told.items() if value is not None}
            return by_label(name, meaning, "place", values)

        return [
            numbers("room_free_bytes", "Bytes that are free in a place.", lambda one: one.free),
            numbers("room_size_bytes", "Bytes of the whole of a place.", lambda one: one.size),
            numbers(
                "room_hours_left",
                "Hours until a place is full, if it fills as in the last hour; missing if it does not.",
                lambda one: one.hours_left,
            ),
        ]

    def _tell(self, place: str, room: Room) -> None:
        if not room.is_low:
            if self._told.pop(place, None) is not None:
                log.info("room_is_there_again", place=place, free_bytes=room.free)
            return
        now = time.monotonic()
        if now - self._told.get(place, float("-inf")) > _TELL_EVERY:
            self._told[place] = now
            log.warning(
                "room_is_low",
                place=place,
                free_bytes=room.free,
                size_bytes=room.size,
                hours_left=None if room.hours_left is None else round(room.hours_left, 1),
                meaning="When it is full, nothing can be stored and runs wait.",
            )
