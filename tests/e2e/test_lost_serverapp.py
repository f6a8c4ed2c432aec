"""The machine of the ServerApps is lost in mid-run, with all of its processes."""

from __future__ import annotations

import psutil
import pytest

from harness.children import PATIENCE, Child, wait_until
from tests.e2e.federation import APPS, OVER_GRPC, Federation, SuperNode
from tests.e2e.servers import ServerOptions

BUSY = "seconds=63.0"
"""Longer than the detection of the loss: a node answers when its run has already failed. A stock
SuperNode works on one message at a time, and always finishes its work."""


@pytest.fixture(scope="module")
def server_options() -> ServerOptions:
    return ServerOptions(isolation="process")


@pytest.mark.long
def test_the_run_of_a_lost_host_fails_with_its_log_and_its_nodes_do_the_next_run(
    federation: Federation, supernodes: list[SuperNode]
) -> None:
    alpha, beta = supernodes
    host = federation.start_superexec("superexec-lost")
    lost = federation.run_app("patient", f'nodes=2 slow-nodes="alpha" {BUSY}')
    stream = federation.start_cli("stream", "log", str(lost), "--stream")
    stream.wait_for_output(f"node {beta.node_id}: answer")
    wait_until(lambda: alpha.took_part_in(lost), PATIENCE, "alpha to be at work")
    assert any("flwr-serverapp" in command for command in commands_of(host))

    federation.of(OVER_GRPC).start_superexec("superexec-elsewhere")

    host.kill_all()
    assert stream.wait(PATIENCE) == 0

    details = federation.details_of(lost)
    assert details["status"] == "finished:failed"
    assert details["status-details"] == "No heartbeat received from the task"
    assert f"node {beta.node_id}: answer" in stream.output()
    following = federation.cli("run", APPS / "nothing", "--stream")
    assert following.returncode == 0, following.stderr
    for node in supernodes:
        assert node.process.exit_code is None
        assert f"node {node.node_id} answered" in following.stdout


def commands_of(superexec: Child) -> list[str]:
    """Return the command lines of all descendants of a SuperExec."""
    children = psutil.Process(superexec.pid).children(recursive=True)
    return [" ".join(child.cmdline()) for child in children]
