"""Which parts of the runtime that `up` starts other machines can reach, for the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flower_nats.settings import GatewaySettings
from flower_nats_cli.addresses import is_of_loopback

CONTROL = "Control"


def for_others(gateway: GatewaySettings, health: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what other machines are served, by the listening address.

    `health` has the addresses of health pages and metrics, by the name of their process.
    """
    http = ["Fleet"]
    if gateway.control_to_others:
        http.append(CONTROL)
    if gateway.runtime_to_others:
        http.append("ServerAppIo")
    served = {
        gateway.http_api_address: http,
        gateway.serverappio_api_address: ["ServerAppIo"],
        gateway.fleet_api_address: ["Fleet"],
        gateway.control_api_address: [CONTROL],
        gateway.health_server_address or "": ["health"],
        **{address: ["health and metrics"] for address in health.values()},
    }
    return {one: apis for one, apis in served.items() if one and not is_of_loopback(one)}


def in_words(served: Mapping[str, Sequence[str]]) -> str:
    """Return the result of `for_others` as a line of text."""
    return ", ".join(f"{one} ({', '.join(apis)})" for one, apis in served.items()) or "nothing"
