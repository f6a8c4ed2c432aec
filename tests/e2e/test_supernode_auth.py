"""TLS, and SuperNodes that are let in by their registered key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.certificates import NodeKey, create_node_key, create_server_certificates
from tests.e2e.federation import Federation, SuperNode
from tests.e2e.servers import STOCK, ServerOptions
from tests.harness.children import wait_until


@pytest.fixture(scope="module")
def server_options(workspace: Path) -> ServerOptions:
    return ServerOptions(certificates=create_server_certificates(workspace), supernode_auth=True)


@pytest.fixture(scope="module")
def key(workspace: Path) -> NodeKey:
    return create_node_key(workspace, "node-key")


@pytest.fixture(scope="module")
def registered_node_id(federation: Federation, key: NodeKey) -> int:
    """The id under which an operator has registered the key."""
    return int(federation.cli_json("supernode", "register", key.public)["node-id"])


@pytest.fixture(scope="module")
def supernode(federation: Federation, key: NodeKey, registered_node_id: int) -> SuperNode:
    """A SuperNode that proves that it has the registered key."""
    process = federation.start_supernode_process("registered", key)
    node = SuperNode("registered", process)
    assert node.node_id == registered_node_id
    return node


def test_a_supernode_with_the_registered_key_takes_part(
    federation: Federation, supernode: SuperNode
) -> None:
    _, log = federation.run_to_end("nothing", "nodes=1")

    assert federation.nodes()[supernode.node_id] == "online"
    assert f"node {supernode.node_id} answered" in log


@pytest.mark.skipif(STOCK, reason="stock turns away a SuperNode that it still takes for online")
def test_a_killed_supernode_that_comes_back_with_its_key_gets_its_instruction_again(
    federation: Federation, supernode: SuperNode, tmp_path: Path
) -> None:
    key = create_node_key(tmp_path, "mortal")
    federation.cli("supernode", "register", key.public)
    victim = SuperNode("mortal", federation.start_supernode_process("mortal", key))
    run_id = federation.run_app("patient", 'nodes=2 slow-nodes="mortal"')
    victim.process.wait_for_output("taking my time")

    victim.process.kill_all()
    # Under a name by which the app does not take its time.
    back = SuperNode("reborn", federation.start_supernode_process("reborn", key))
    federation.wait_for_status(run_id, "finished:completed")

    assert back.node_id == victim.node_id
    assert back.took_part_in(run_id)
    lines = federation.log_of(run_id).splitlines()
    answers = [line for line in lines if line.startswith("node ")]
    assert sorted(answers) == sorted(f"node {one.node_id}: answer" for one in (supernode, back))


def test_a_supernode_with_an_unknown_key_is_turned_away(
    federation: Federation, tmp_path: Path
) -> None:
    stranger = create_node_key(tmp_path, "stranger")
    process = federation.start_supernode_process("stranger", stranger)

    process.wait(30.0)
    assert "SuperNode ID" not in process.output()


def test_a_supernode_without_a_key_is_turned_away(federation: Federation) -> None:
    process = federation.start_supernode_process("keyless")

    process.wait(30.0)
    assert "SuperNode ID" not in process.output()


def test_login_says_that_there_are_no_accounts(federation: Federation) -> None:
    assert "account" in federation.refusal("login").lower()


def test_an_unregistered_supernode_is_shut_out(
    federation: Federation, supernode: SuperNode
) -> None:
    done = federation.cli("supernode", "unregister", str(supernode.node_id))

    assert f"SuperNode {supernode.node_id} unregistered successfully." in done.stdout
    assert federation.nodes()[supernode.node_id] == "unregistered"
    wait_until(lambda: supernode.process.exit_code is not None, 40.0, "the SuperNode to shut down")
