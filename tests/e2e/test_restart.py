"""A server that is killed and started again goes on where it was."""

from __future__ import annotations

from tests.e2e.federation import Federation, SuperNode
from tests.e2e.processes import wait_until
from tests.e2e.servers import ServerUnderTest


def test_a_killed_server_comes_back_with_every_run_node_and_log(
    federation_server: ServerUnderTest, federation: Federation, supernodes: list[SuperNode]
) -> None:
    online = {node.node_id: "online" for node in supernodes}
    run_id = federation.run_app("nothing")
    federation.wait_for_status(run_id, "finished:completed")
    run, log = federation.details_of(run_id), federation.log_of(run_id)

    federation_server.process.kill()
    federation_server.start()

    assert federation.details_of(run_id) == run
    assert federation.log_of(run_id) == log
    wait_until(lambda: federation.nodes() == online, 60.0, "the SuperNodes to be online again")


def test_the_supernodes_of_a_killed_server_go_on_without_being_restarted(
    federation_server: ServerUnderTest, federation: Federation, supernodes: list[SuperNode]
) -> None:
    federation_server.process.kill()
    federation_server.start()

    run_id = federation.run_app("nothing")
    federation.wait_for_status(run_id, "finished:completed", timeout=90.0)

    log = federation.log_of(run_id)
    for node in supernodes:
        assert node.process.exit_code is None
        assert f"node {node.node_id} answered" in log
