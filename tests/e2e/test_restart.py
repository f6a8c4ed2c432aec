"""A server that is killed and restarted goes on with its runs."""

from __future__ import annotations

import re

import pytest

from harness.children import PATIENCE, wait_until
from tests.e2e.federation import BOTH, Federation, SuperNode
from tests.e2e.servers import ServerOptions, ServerUnderTest


@pytest.fixture(scope="module")
def server_options() -> ServerOptions:
    # The SuperExec for ServerApps outlives the server.
    return ServerOptions(isolation="process")


def test_a_killed_server_comes_back_with_every_run_node_and_log(
    federation_server: ServerUnderTest, federation: Federation, supernodes: list[SuperNode]
) -> None:
    superexec = federation.start_superexec("superexec")
    run_id, _ = federation.run_to_end("nothing")
    run, log = federation.details_of(run_id), federation.log_of(run_id)
    superexec.terminate()

    federation_server.process.kill()
    federation_server.start()

    assert federation.details_of(run_id) == run
    assert federation.log_of(run_id) == log
    assert set(federation.nodes()) == {node.node_id for node in supernodes}


@pytest.mark.parametrize("version", BOTH)
def test_a_run_goes_on_when_the_server_is_killed_under_it(
    federation_server: ServerUnderTest,
    federation: Federation,
    supernodes: list[SuperNode],
    version: str,
) -> None:
    superexec = federation.of(version).start_superexec(f"superexec-{version}")
    run_id = federation.run_app("nothing", "rounds=2 seconds=3.0")
    for node in supernodes:
        wait_until(lambda: node.took_part_in(run_id), PATIENCE, f"{node.name} to be asked")  # noqa: B023

    federation_server.process.kill()
    federation_server.start()
    federation.wait_for_status(run_id, "finished:completed")

    log = federation.log_of(run_id)
    assert re.findall(r"round (\d+) gathered 2 answers", log) == ["1", "2"]
    for node in supernodes:
        assert node.process.exit_code is None
        assert log.count(f"node {node.node_id} answered") == 2
    superexec.terminate()
