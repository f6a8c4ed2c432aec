"""A gateway that runs out of file descriptors serves its connections, and then new ones again."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flower_nats.wire import fleet_pb2 as fleet
from harness.channels import WireName
from harness.children import PATIENCE, wait_until
from tests.integration.gateways import Clients
from tests.integration.processes import running_processes

LIMIT = 80
"""Descriptors of the gateway, which needs about 40 before its clients come."""

STRANGERS = 60
"""Connections to each API by strangers, which say nothing."""


@contextmanager
def silent_connections(addresses: Mapping[str, str]) -> Iterator[None]:
    with ExitStack() as stack:
        for address in addresses.values():
            host, _, port = address.rpartition(":")
            for _ in range(STRANGERS):
                stack.enter_context(socket.create_connection((host, int(port)), PATIENCE))
        yield


async def test_a_gateway_without_descriptors_serves_its_nodes_and_then_others_again(
    nats_url: str, pg_dsn: str, wire: WireName, tmp_path: Path
) -> None:
    async with running_processes(nats_url, pg_dsn, wire, tmp_path) as runtime:
        gateway = runtime.gateway
        node = await runtime.clients.node()
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))

        with silent_connections(gateway.addresses):
            wait_until(
                lambda: "connections_not_accepted" in gateway.output(), PATIENCE, "a word of it"
            )
            beat = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
            await node.call("SendNodeHeartbeat", beat)

        late = Clients(settings=runtime.clients.settings, wire=wire)
        try:
            await late.node()
        finally:
            await late.close()
        assert gateway.exit_code() is None
        assert gateway.output().count("connections_not_accepted") == 1
