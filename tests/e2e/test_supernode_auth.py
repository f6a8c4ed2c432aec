"""TLS, and SuperNodes with registered keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.certificates import NodeKey, create_node_key, create_server_certificates
from harness.children import PATIENCE, wait_until
from tests.e2e.federation import BOTH, Federation, SuperNode
from tests.e2e.servers import STOCK, ServerOptions


@pytest.fixture(scope="module")
def server_options(workspace: Path) -> ServerOptions:
    return ServerOptions(certificates=create_server_certificates(workspace), supernode_auth=True)


@pytest.fixture(scope="module")
def supernodes(federation: Federation, workspace: Path) -> list[SuperNode]:
    """SuperNodes with registered keys, one over each wire."""
    names = {version: f"registered-{version}" for version in BOTH}
    return [
        start_registered(federation.of(version), name, create_node_key(workspace, name))
        for version, name in names.items()
    ]


def start_registered(federation: Federation, name: str, key: NodeKey) -> SuperNode:
    """Register a key like an operator, and start the SuperNode with this key."""
    node_id = int(federation.cli_json("supernode", "register", key.public)["node-id"])
    node = SuperNode(name, federation.start_supernode_process(name, key))
    assert node.node_id == node_id
    return node


def test_supernodes_with_a_registered_key_take_part(
    federation: Federation, supernodes: list[SuperNode]
) -> None:
    _, log = federation.run_to_end("nothing", f"nodes={len(supernodes)}")

    for node in supernodes:
        assert federation.nodes()[node.node_id] == "online"
        assert f"node {node.node_id} answered" in log


@pytest.mark.skipif(STOCK, reason="stock turns away a SuperNode that it still takes for online")
def test_killed_supernodes_that_come_back_with_their_keys_get_their_instructions_again(
    federation: Federation, supernodes: list[SuperNode], tmp_path: Path
) -> None:
    keys = {version: create_node_key(tmp_path, version) for version in BOTH}
    victims = [
        start_registered(federation.of(version), f"mortal-{version}", key)
        for version, key in keys.items()
    ]
    slow = " ".join(victim.name for victim in victims)
    nodes = len(supernodes) + len(victims)
    run_id = federation.run_app("patient", f'nodes={nodes} slow-nodes="{slow}"')
    for victim in victims:
        victim.process.wait_for_output("taking my time")

    for victim in victims:
        victim.process.kill_all()
    # The app is slow only for the old names.
    reborn = {
        f"reborn-{version}": federation.of(version).start_supernode_process(
            f"reborn-{version}", key
        )
        for version, key in keys.items()
    }
    back = [SuperNode(name, process) for name, process in reborn.items()]
    federation.wait_for_status(run_id, "finished:completed")

    assert [one.node_id for one in back] == [victim.node_id for victim in victims]
    assert [one.took_part_in(run_id) for one in back] == [True] * len(back)
    lines = federation.log_of(run_id).splitlines()
    answers = [line for line in lines if line.startswith("node ")]
    assert sorted(answers) == sorted(f"node {one.node_id}: answer" for one in (*supernodes, *back))


@pytest.mark.skipif(STOCK, reason="stock turns away a SuperNode that it still takes for online")
@pytest.mark.parametrize("version", BOTH)
def test_a_supernode_takes_over_from_another_one_with_its_key(
    user: Federation,
    federation: Federation,
    supernodes: list[SuperNode],
    tmp_path: Path,
    version: str,
) -> None:
    key = create_node_key(tmp_path, "handed-over")
    old = start_registered(user, f"old-{version}", key)
    new = SuperNode(f"new-{version}", user.start_supernode_process(f"new-{version}", key))
    assert new.node_id == old.node_id
    old.process.terminate()

    _, log = federation.run_to_end("nothing", f"nodes={len(supernodes) + 1}")

    assert federation.nodes()[new.node_id] == "online"
    assert f"node {new.node_id} answered" in log
    new.process.terminate()


@pytest.mark.parametrize("version", BOTH)
def test_a_supernode_with_an_unknown_key_is_turned_away(user: Federation, tmp_path: Path) -> None:
    stranger = create_node_key(tmp_path, "stranger")
    process = user.start_supernode_process("stranger", stranger)

    process.wait(PATIENCE)
    assert "SuperNode ID" not in process.output()


@pytest.mark.parametrize("version", BOTH)
def test_a_supernode_without_a_key_is_turned_away(user: Federation) -> None:
    process = user.start_supernode_process("keyless")

    process.wait(PATIENCE)
    assert "SuperNode ID" not in process.output()


@pytest.mark.parametrize("version", BOTH)
def test_login_says_that_there_are_no_accounts(user: Federation) -> None:
    assert "account" in user.refusal("login").lower()


def test_an_unregistered_supernode_is_shut_out(
    federation: Federation, supernodes: list[SuperNode]
) -> None:
    for node in supernodes:
        done = federation.cli("supernode", "unregister", str(node.node_id))
        assert f"SuperNode {node.node_id} unregistered successfully." in done.stdout

    for node in supernodes:
        assert federation.nodes()[node.node_id] == "unregistered"
        wait_until(lambda: node.process.exit_code is not None, 40.0, "the SuperNode to shut down")  # noqa: B023
