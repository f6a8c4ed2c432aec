"""A server that is killed and started again goes on where it was."""

from __future__ import annotations

from tests.e2e.federation import Federation, SuperNode
from tests.e2e.servers import ServerUnderTest


def test_a_killed_server_comes_back_with_every_run_node_and_log(
    federation_server: ServerUnderTest, federation: Federation, supernodes: list[SuperNode]
) -> None:
    run_id = federation.run_app("nothing")
    federation.wait_for_status(run_id, "finished:completed")
    run, log = federation.details_of(run_id), federation.log_of(run_id)

    federation_server.process.kill()
    federation_server.start()

    assert federation.details_of(run_id) == run
    assert federation.log_of(run_id) == log
    assert set(federation.nodes()) == {node.node_id for node in supernodes}
    assert_the_same_supernodes_do_the_next_run(federation, supernodes)


def assert_the_same_supernodes_do_the_next_run(
    federation: Federation, supernodes: list[SuperNode]
) -> None:
    _, log = federation.run_to_end("nothing")

    for node in supernodes:
        assert node.process.exit_code is None
        assert f"node {node.node_id} answered" in log
