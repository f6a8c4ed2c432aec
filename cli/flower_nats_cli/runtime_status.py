"""What a running runtime says of itself, asked over NATS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient

_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 2.0


class StatusClient:
    """Asks superlinks, and the broker, how things are."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = RpcClient(connection)

    async def ask(self, patience: float) -> dict[str, Any]:
        """Return a superlink's answer; raises Unavailable when none comes in `patience` seconds."""
        return await self._client.ask("Status", patience=patience)

    async def broker(self) -> dict[str, Any]:
        """Return the broker's version and whether it syncs before it acknowledges.

        The embedded server lets its clients ask; raises Unavailable when it does not answer.
        """
        answer = await self._connection.ask(
            "$SYS.REQ.SERVER.PING.VARZ", b"", timeout=_ANSWER_SECONDS
        )
        server = json.loads(answer.data)["data"]
        return {
            "version": server["version"],
            "synced": bool(server["jetstream"]["config"].get("sync_always", False)),
        }


@asynccontextmanager
async def status_client(nats_url: str) -> AsyncIterator[StatusClient]:
    """Connect for the time of a `with` block; raises Unavailable when no broker answers."""
    connection = await Connection.connect([nats_url], name="flower-nats", patience=_CONNECT_SECONDS)
    try:
        yield StatusClient(connection)
    finally:
        await connection.close()
