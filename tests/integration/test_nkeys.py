"""A gateway logs in to NATS with an NKey in place of a password (docs/security.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flower_nats.broker.permissions import User, accounts
from flower_nats.embedded.nats_server import find_nats_server, password_of
from flower_nats.wire import runtime_pb2 as runtime
from harness.channels import WireName
from harness.children import Child, wait_until
from harness.environment import accepts_connections, free_port
from tests.integration.gateways import running_gateway
from tests.integration.superlinks import running_superlink

# The example in NATS's documentation.
_SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
_PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


@pytest.fixture
def owner_url(tmp_path: Path) -> Iterator[str]:
    """URL of a NATS server with our accounts, and a public key as the gateway's login."""
    secret, port = "hush", free_port()
    known = accounts({user: password_of(user, secret) for user in User})
    [gateway] = known[User.GATEWAY.upper()]["users"]
    permissions = gateway["permissions"]
    gateway.clear()
    gateway.update({"nkey": _PUBLIC, "permissions": permissions})
    config = {
        "listen": f"127.0.0.1:{port}",
        "max_payload": 8 * 1024 * 1024,
        "jetstream": {"store_dir": str(tmp_path / "store"), "sync_interval": "always"},
        "accounts": known,
        "system_account": "SYS",
    }
    (tmp_path / "nats.conf").write_text(json.dumps(config))
    process = Child(
        [find_nats_server(), "--config", str(tmp_path / "nats.conf")],
        log_file=tmp_path / "nats.log",
        environment={},
    )
    try:
        wait_until(lambda: accepts_connections(f"127.0.0.1:{port}"), 20.0, "nats-server")
        yield f"nats://{User.OWNER}:{secret}@127.0.0.1:{port}"
    finally:
        process.kill_all()


async def test_a_gateway_with_a_key_serves_as_one_with_a_password(
    owner_url: str, pg_dsn: str, wire: WireName
) -> None:
    with_key = f"nats://gateway:{_SEED}@127.0.0.1:{urlsplit(owner_url).port}"
    async with (
        running_superlink(owner_url, pg_dsn) as superlink,
        running_gateway(superlink, owner_url, wire, nats=(with_key,)) as gateway,
    ):
        node = await gateway.node()
        app = await gateway.server_app()
        await app.call("PushLogs", runtime.PushLogsRequest(logs=["a line"]))
        nodes = await app.call("GetNodes", runtime.GetNodesRequest())
        await app.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="completed"))

        assert [one.node_id for one in nodes.nodes] == [node.node_id]
        assert "a line" in await gateway.log_of(app.run_id)
