"""TLS ends at the balancer: stock clients with certificates and registered keys get through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.certificates import create_node_key, create_server_certificates
from tests.e2e.federation import Federation, SuperNode
from tests.e2e.servers import STOCK, ServerOptions

pytestmark = pytest.mark.skipif(STOCK, reason="stock has one SuperLink")


@pytest.fixture(scope="module")
def server_options(workspace: Path) -> ServerOptions:
    certificates = create_server_certificates(workspace)
    return ServerOptions(certificates=certificates, supernode_auth=True, replicas=2)


def test_a_supernode_with_a_registered_key_takes_part(
    federation: Federation, workspace: Path
) -> None:
    key = create_node_key(workspace, "node-key")
    federation.cli_json("supernode", "register", key.public)
    node = SuperNode("registered", federation.start_supernode_process("registered", key))

    run_id, log = federation.run_to_end("nothing", "nodes=1")

    assert f"node {node.node_id} answered" in log
    assert federation.status_of(run_id) == "finished:completed"
