"""What a running runtime says of itself, asked over NATS."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient

_CONNECT_SECONDS = 3.0


class StatusClient:
    """Asks superlinks how things are."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = RpcClient(connection)

    async def ask(self, patience: float) -> dict[str, Any]:
        """Return a superlink's answer; raises Unavailable when none comes in `patience` seconds."""
        return await self._client.ask("Status", patience=patience)

    async def ask_about_run(self, run_id: int, patience: float) -> dict[str, Any]:
        """Return how far a run has come.

        Raises `ApiError` (RUN_ID_NOT_FOUND), and `Unavailable` when no answer comes in `patience`
        seconds.
        """
        return await self._client.ask("RunReport", patience=patience, run_id=run_id)

    def broker_version(self) -> str:
        """Return the version of the server that this is connected to."""
        return str(self._connection.server_info.get("version", "unknown"))


@asynccontextmanager
async def status_client(
    nats: Sequence[str], ca_certificate: Path | None = None
) -> AsyncIterator[StatusClient]:
    """Connect for the time of a `with` block; raises Unavailable when no broker answers."""
    # Nobody needs to read of each attempt: who asks says what came of it.
    logging.getLogger("flower_nats.broker").setLevel(logging.ERROR)
    connection = await Connection.connect(
        nats, "flower-nats", patience=_CONNECT_SECONDS, ca_certificate=ca_certificate
    )
    try:
        yield StatusClient(connection)
    finally:
        await connection.close()
