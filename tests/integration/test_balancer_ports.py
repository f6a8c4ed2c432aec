"""Each port of the balancer takes clients of both wires, with and without TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest

from flower_nats.embedded.balancer import Balancer
from flower_nats.embedded.envoy import Api
from flower_nats.wire.methods import BY_NAME
from harness.certificates import in_file, shown_at
from harness.children import PATIENCE
from harness.environment import accepts_connections
from harness.waiting import until
from tests.integration.gateways import free_address
from tests.integration.http_front import (
    GET_NODES,
    certificates,
    front,
    grpc_channel,
)
from tests.integration.test_balancer import upstream


@pytest.mark.parametrize("with_tls", [False, True])
async def test_a_grpc_client_that_comes_to_the_http_port_is_served(
    tmp_path: Path, with_tls: bool
) -> None:
    tls = certificates(tmp_path) if with_tls else None
    async with front(tmp_path, tls) as there, grpc_channel(there.addresses["http"], tls) as channel:
        for method in BY_NAME.values():
            if not method.streams:
                for path in method.grpc_paths:
                    call: Any = channel.unary_unary(path)
                    assert int((await call(b"who", timeout=20.0)).split()[0])


@pytest.mark.parametrize("with_tls", [False, True])
async def test_an_http_client_that_comes_to_a_grpc_port_is_served(
    tmp_path: Path, with_tls: bool
) -> None:
    ports = {"Fleet": "fleet", "Runtime": "serverappio", "Control": "control"}
    async with front(tmp_path, certificates(tmp_path) if with_tls else None) as there:
        statuses: Counter[int] = Counter()
        for method in BY_NAME.values():
            if not method.streams:
                answer = await there.call(b"who", method.http_path, ports[method.api])
                statuses[answer.status_code] += 1

    assert set(statuses) == {200}


async def test_a_grpc_port_serves_no_other_api_and_names_the_port_that_does(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        refused = await there.call(b"who", GET_NODES.http_path, "fleet")
        async with grpc_channel(there.addresses["fleet"], None) as channel:
            call: Any = channel.unary_unary(GET_NODES.path)
            with pytest.raises(grpc.aio.AioRpcError) as unimplemented:
                await call(b"who", timeout=20.0)

    assert refused.status_code == 404
    assert "Fleet API" in refused.json()["detail"]
    assert "8000" in refused.json()["detail"]
    assert unimplemented.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_tls_ends_at_the_balancer_and_has_a_port_without_it_for_this_machine(
    tmp_path: Path,
) -> None:
    tls, listen, loopback = certificates(tmp_path), free_address(), free_address()
    grpc_address, http_address = free_address(), free_address()
    gateway = upstream(tmp_path, grpc_address, http_address)
    balancer = Balancer(
        tmp_path / "balancer", [Api("http", listen, [http_address], tls, loopback=loopback)]
    )
    try:
        await gateway.start()
        await until(lambda: accepts_connections(http_address))
        await balancer.start()
        trust = ssl.create_default_context(cafile=str(tls.ca_certificate))
        async with httpx.AsyncClient(verify=trust) as client:
            for url in (f"https://{listen}", f"http://{loopback}"):
                answer = await client.post(url + GET_NODES.http_path, content=b"who")
                assert answer.status_code == 200
    finally:
        await balancer.stop()
        await gateway.stop()


async def test_its_end_resets_a_tls_handshake_so_that_the_client_tries_again(
    tmp_path: Path,
) -> None:
    """Stock clients over HTTP die of a plain end of the connection in mid-handshake."""
    tls = certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(tls.ca_certificate))
    async with front(tmp_path, tls, gateways=1) as there:
        host, _, port = there.addresses["http"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        handshake = context.wrap_bio(received, to_send, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            handshake.do_handshake()
        writer.write(to_send.read())
        received.write(await reader.read(65536))

        stopping = asyncio.create_task(there.balancer.stop())
        await asyncio.sleep(0.1)
        with suppress(ssl.SSLWantReadError):
            handshake.do_handshake()
        writer.write(to_send.read())

        with pytest.raises(ConnectionResetError):
            await reader.read(65536)
        await stopping


async def test_a_certificate_that_is_renewed_is_shown_from_then_on(tmp_path: Path) -> None:
    tls = certificates(tmp_path)
    (tmp_path / "renewed").mkdir()
    renewed = certificates(tmp_path / "renewed")
    async with front(tmp_path, tls, gateways=1) as there:
        running = asyncio.create_task(there.balancer.wait())

        async def shown(*, protocol: str) -> set[bytes]:
            ports = there.addresses.values()
            return {await asyncio.to_thread(shown_at, address, protocol) for address in ports}

        assert await shown(protocol="h2") == {in_file(tls.certificate)}
        shutil.copy(renewed.certificate, tls.certificate)
        shutil.copy(renewed.key, tls.key)

        async with asyncio.timeout(PATIENCE):
            while await shown(protocol="h2") != {in_file(renewed.certificate)}:
                await asyncio.sleep(0.05)
        assert await shown(protocol="http/1.1") == {in_file(renewed.certificate)}
        assert not running.done()
        running.cancel()


async def test_all_addresses_of_ipv6_are_all_addresses_of_ipv4_as_well(tmp_path: Path) -> None:
    port = free_address().rpartition(":")[2]
    names = ("http", "control", "fleet", "serverappio")
    listen = {"http": f"[::]:{port}"}
    apis = [Api(name, listen.get(name, free_address()), [free_address()], None) for name in names]
    balancer = Balancer(tmp_path, [replace(apis[0], kept=("control",)), *apis[1:]])
    await balancer.start()
    try:
        hosts = ("127.0.0.1", "::1")
        statuses = set(await asyncio.gather(*(status_at(host, int(port)) for host in hosts)))
    finally:
        await balancer.stop()

    # 503: no gateway runs. For other machines, this port would not know Control at all.
    assert statuses == {b"503"}


async def status_at(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    path = BY_NAME["Control", "ListRuns"].http_path
    writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return line.split()[1]
