"""The balancer of the Compose stacks finds all gateways by one name in Docker's DNS."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from flower_nats.embedded.balancer import find_envoy
from flower_nats.embedded.process import OwnedProcess, ProcessSpec
from harness.children import PATIENCE
from harness.environment import accepts_connections, free_port
from harness.waiting import until
from tests.integration.gateways import free_address
from tests.integration.test_balancer import kill

_CONFIG = Path(__file__).parents[2] / "compose" / "envoy" / "envoy.apps.json"
_CARES = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
_A, _NO_SUCH_NAME = 1, 3


class Dns(asyncio.DatagramProtocol):
    """A DNS server with the same addresses for all names; without addresses no name exists."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked += 1
        question = data[12 : data.index(b"\0", 12) + 5]
        (kind,) = struct.unpack("!H", question[-4:-2])
        found = self.addresses if kind == _A else []
        # The name of the question, and Docker's long TTL, which the balancer must ignore.
        answers = [
            struct.pack("!HHHIH", 0xC00C, _A, 1, 600, 4) + socket.inet_aton(one) for one in found
        ]
        flags = 0x8180 | (0 if self.addresses else _NO_SUCH_NAME)
        header = data[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0)
        self._transport.sendto(header + question + b"".join(answers), addr)


class Balanced:
    """The balancer with its committed configuration on other ports, and its gateways."""

    def __init__(self, directory: Path, dns: Dns, resolver: tuple[str, int]) -> None:
        self.dns = dns
        self._directory = directory
        self._port = free_port()
        self._processes: list[OwnedProcess] = []
        self.listen = free_address()
        self._config = json.loads(_CONFIG.read_text())
        self._move(resolver)
        self._channel = grpc.aio.insecure_channel(self.listen)

    async def start(self) -> None:
        file = self._directory / "envoy.json"
        file.write_text(json.dumps(self._config))
        command = [find_envoy(), "--config-path", str(file), "--disable-hot-restart"]
        await self._start(ProcessSpec("envoy", command, log=self._directory / "envoy.log"))
        await until(lambda: accepts_connections(self.listen))

    async def start_gateway(self, host: str) -> OwnedProcess:
        address = f"{host}:{self._port}"
        command = [sys.executable, "-m", "tests.integration.upstream", address]
        log = self._directory / f"{host}.log"
        process = await self._start(ProcessSpec(f"gateway-{host}", command, log=log))
        await until(lambda: accepts_connections(address))
        return process

    async def call(self) -> int:
        """Make a call, and return the process id of the gateway that answers."""
        method: Any = self._channel.unary_unary("/flwr.proto.ServerAppIo/PushTaskOutput")
        answer: bytes = await method(b"who", timeout=60.0)
        return int(answer.split()[0])

    async def stop(self) -> None:
        await self._channel.close()
        for process in self._processes:
            await process.stop()

    async def _start(self, spec: ProcessSpec) -> OwnedProcess:
        process = OwnedProcess(spec)
        self._processes.append(process)
        await process.start()
        return process

    def _move(self, resolver: tuple[str, int]) -> None:
        everything = self._config["static_resources"]
        ours = [one for one in everything["listeners"] if one["name"] == "serverappio"]
        everything["listeners"] = ours
        host, _, port = self.listen.partition(":")
        ours[0]["address"]["socket_address"] = {"address": host, "port_value": int(port)}
        for cluster in everything["clusters"]:
            self._move_cluster(cluster, resolver)

    def _move_cluster(self, cluster: Any, resolver: tuple[str, int]) -> None:
        for endpoint in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]:
            address = endpoint["endpoint"]["address"]["socket_address"]
            if address["address"] == "gateway" and cluster["name"] == "serverappio":
                address["port_value"] = self._port
        server = {"address": resolver[0], "port_value": resolver[1], "protocol": "UDP"}
        cluster["cluster_type"]["typed_config"]["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": f"type.googleapis.com/{_CARES}",
                "resolvers": [{"socket_address": server}],
            },
        }


@asynccontextmanager
async def balanced(directory: Path) -> AsyncIterator[Balanced]:
    loop = asyncio.get_running_loop()
    transport, dns = await loop.create_datagram_endpoint(Dns, local_addr=("127.0.0.1", 0))
    there = Balanced(directory, dns, transport.get_extra_info("sockname"))
    try:
        await there.start()
        yield there
    finally:
        await there.stop()
        transport.close()


async def test_gateways_that_are_added_get_calls(tmp_path: Path) -> None:
    async with balanced(tmp_path) as there:
        first = await there.start_gateway("127.0.0.1")
        there.dns.addresses = ["127.0.0.1"]
        assert await there.call() == first.pid

        second = await there.start_gateway("127.0.0.2")
        there.dns.addresses = ["127.0.0.1", "127.0.0.2"]

        async with asyncio.timeout(PATIENCE):
            while await there.call() != second.pid:
                await asyncio.sleep(0.05)


async def test_while_no_gateway_has_a_container_calls_look_for_one(tmp_path: Path) -> None:
    async with balanced(tmp_path) as there:
        gateway = await there.start_gateway("127.0.0.1")
        there.dns.addresses = ["127.0.0.1"]
        await there.call()

        there.dns.addresses = []
        kill(gateway)
        await asked_again(there.dns)
        call = asyncio.create_task(there.call())
        await asked_again(there.dns)
        assert not call.done()
        again = await there.start_gateway("127.0.0.1")
        there.dns.addresses = ["127.0.0.1"]

        assert await call == again.pid


async def asked_again(dns: Dns, times: int = 16) -> None:
    """Wait until the balancer has asked again for each API, and has used the answers."""
    asked = dns.asked
    await until(lambda: dns.asked >= asked + times)
