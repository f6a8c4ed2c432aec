"""A SuperNode and `flwr` behind a web proxy, which is the only way out of many hospitals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from harness.certificates import create_server_certificates
from harness.children import PATIENCE, Child, wait_until
from harness.environment import accepts_connections, free_port
from harness.flower import Addresses
from tests.e2e.federation import BOTH, Federation, SuperNode
from tests.e2e.servers import ServerOptions, ServerUnderTest


@pytest.fixture(scope="module")
def server_options(workspace: Path) -> ServerOptions:
    return ServerOptions(create_server_certificates(workspace))


@pytest.fixture(scope="module")
def proxy(workspace: Path) -> Iterator[str]:
    """A web proxy that allows all targets, and keeps quiet connections for a minute."""
    address = f"127.0.0.1:{free_port()}"
    host, _, port = address.partition(":")
    child = Child(
        [
            *("proxy", "--hostname", host, "--port", port, "--timeout", "60"),
            *("--num-workers", "1", "--num-acceptors", "1"),
        ],
        log_file=workspace / "proxy.log",
        environment={},
    )
    try:
        wait_until(lambda: accepts_connections(address), PATIENCE, "the proxy")
        yield address
    finally:
        child.terminate()


@pytest.fixture(scope="module")
def behind_proxy(
    federation_server: ServerUnderTest, workspace: Path, proxy: str
) -> Iterator[Federation]:
    """Clients that use the proxy for all addresses but those of their own machine."""
    server = ServerUnderTest(federation_server.folder, federation_server.options)
    addresses = asdict(federation_server.addresses)
    # For the clients, `localhost` is another machine; SuperNodes serve ClientApps on 127.0.0.1.
    elsewhere = {api: one.replace("127.0.0.1", "localhost") for api, one in addresses.items()}
    server.addresses = Addresses(**elsewhere)
    variables = {"HTTPS_PROXY": f"http://{proxy}", "NO_PROXY": "127.0.0.1"}
    lower = {name.lower(): value for name, value in variables.items()}
    clients = Federation(server, workspace / "behind-proxy", {**variables, **lower})
    yield clients
    clients.close()


@pytest.mark.parametrize("version", BOTH)
def test_a_supernode_and_flwr_get_out_by_a_web_proxy_alone(
    behind_proxy: Federation, workspace: Path, version: str
) -> None:
    proxied = (workspace / "proxy.log").read_text().count("CONNECT localhost:")
    clients = behind_proxy.of(version)
    child = clients.start_supernode_process(version)
    node = SuperNode(version, child)

    _, log = clients.run_to_end("subset", "nodes=1 ask=1")

    assert f"asked node {node.node_id}: {version}\n" in log
    assert not direct_connections(child, behind_proxy.server.addresses)
    child.terminate()
    # At least two: of the SuperNode and of `flwr`. The proxy logs connections at their end.
    assert (workspace / "proxy.log").read_text().count("CONNECT localhost:") >= proxied + 2


def direct_connections(child: Child, addresses: Addresses) -> list[int]:
    """Return the runtime's ports to which a SuperNode or its ClientApps have connections."""
    ports = {int(one.rpartition(":")[2]) for one in asdict(addresses).values()}
    parent = psutil.Process(child.pid)
    connections = [
        one for each in (parent, *parent.children(recursive=True)) for one in each.net_connections()
    ]
    return [one.raddr.port for one in connections if one.raddr and one.raddr.port in ports]
