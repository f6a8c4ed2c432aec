"""A superlink and a gateway as processes of their own, and clients of the gateway."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from flower_nats.broker.permissions import User
from flower_nats.settings import GatewaySettings
from harness.channels import WireName
from harness.logins import as_user
from harness.processes import Gateway, Replica
from tests.integration.gateways import Clients, free_address


@dataclass
class Runtime:
    """A superlink and a gateway, each in its own process, and clients of the gateway."""

    superlink: Replica
    gateway: Gateway
    clients: Clients

    def peaks(self) -> dict[str, int]:
        """Return the peak memory of each process, in MiB."""
        return {one.name: peak_of(one.pid) for one in (self.superlink, self.gateway)}


@asynccontextmanager
async def running_processes(
    nats_url: str, pg_dsn: str, wire: WireName, tmp_path: Path
) -> AsyncIterator[Runtime]:
    secrets = {
        "FLOWER_NATS_SUPERLINK_NATS": as_user(nats_url, User.SUPERLINK),
        "FLOWER_NATS_SUPERLINK_DATABASE": pg_dsn,
    }
    command = ["superlink", "--isolation", "process"]
    superlink = Replica("superlink", command, secrets, tmp_path, "superlink_ready")
    gateway = Gateway(
        "gateway",
        {api: free_address() for api in ("Http", "Runtime", "Fleet", "Control")},
        free_address(),
        {"FLOWER_NATS_GATEWAY_NATS": as_user(nats_url, User.GATEWAY)},
        tmp_path,
    )
    await superlink.start()
    await gateway.start()
    settings = GatewaySettings(
        nats=(),
        http_api_address=gateway.addresses["Http"],
        serverappio_api_address=gateway.addresses["Runtime"],
        fleet_api_address=gateway.addresses["Fleet"],
        control_api_address=gateway.addresses["Control"],
    )
    clients = Clients(settings=settings, wire=wire)
    try:
        yield Runtime(superlink, gateway, clients)
    finally:
        await clients.close()
        await gateway.stop()
        await superlink.stop()


def peak_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) // 1024
