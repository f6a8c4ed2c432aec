"""Questions to a running runtime, over NATS."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient

_CONNECT_SECONDS = 3.0


class RuntimeClient:
    """Asks superlinks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = RpcClient(connection)

    async def ask(self, question: str, patience: float, **parameters: Any) -> dict[str, Any]:
        """Return a superlink's answer to a question of operators, such as `Status`.

        Raises `ApiError` for a refusal, and `Unavailable` if no answer comes in `patience` seconds.
        """
        return await self._client.ask(
            question, patience=patience, service=subjects.OPERATOR, **parameters
        )

    def broker_version(self) -> str:
        """Return the version of the connected NATS server."""
        return str(self._connection.server_info.get("version", "unknown"))


@asynccontextmanager
async def runtime_client(
    nats: Sequence[str], ca_certificate: Path | None = None
) -> AsyncIterator[RuntimeClient]:
    """Connect for the time of a `with` block; raises Unavailable when no broker answers."""
    # The log need not show each attempt: the caller reports the result.
    logging.getLogger("flower_nats.broker").setLevel(logging.ERROR)
    connection = await Connection.connect(
        nats, "flower-nats", patience=_CONNECT_SECONDS, ca_certificate=ca_certificate
    )
    try:
        yield RuntimeClient(connection)
    finally:
        await connection.close()
