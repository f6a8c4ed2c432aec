"""How much each NATS server stores, and how much it may."""

import json
from contextlib import suppress
from typing import Any

from nats.aio.msg import Msg

from flower_nats.broker.connection import Connection
from flower_nats.model.errors import Unavailable

SETTINGS = "$SYS.REQ.SERVER.PING.VARZ"
"""Each server answers this with its settings and figures, if the system account exports it."""

_HEAR_SECONDS = 1.0


async def server_figures(
    connection: Connection, wanted: set[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return what each server reports of its JetStream, by the server's name.

    Without `wanted`, it collects answers for a second; otherwise until these servers have answered.
    A server with JetStream turned off has an empty map. The result is empty if this user may not
    ask.
    """
    heard: dict[str, dict[str, Any]] = {}

    def hear(message: Msg) -> bool:
        answer = json.loads(message.data)
        name = answer.get("server", {}).get("name", "")
        heard[name] = answer.get("data", {}).get("jetstream") or {}
        return wanted is not None and wanted <= heard.keys()

    # The time is over, or this account may not ask servers for their settings.
    with suppress(Unavailable):
        await connection.ask(SETTINGS, b"", timeout=_HEAR_SECONDS, enough=hear)
    return heard


async def storage(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return {place: (bytes stored, bytes allowed)} for our account, if limited, and for servers.

    Raises `Unavailable`.
    """
    account = await connection.account()
    limit = int(account.get("limits", {}).get("max_storage", -1))
    places = {} if limit < 0 else {"broker account": (int(account.get("storage", 0)), limit)}
    for name, jetstream in (await server_figures(connection)).items():
        allowed = int(jetstream.get("config", {}).get("max_storage", -1))
        if allowed >= 0:
            places[f"broker {name}"] = int(jetstream["stats"]["storage"]), allowed
    return places
