"""Nodes join and leave while an app is running."""

from __future__ import annotations

import time

import pytest

from harness.children import PATIENCE, wait_until
from tests.e2e.federation import OVER_GRPC, OVER_HTTP, Federation

NODE_UNAVAILABLE = "error 5: "
# A SuperNode that is silent for two heartbeat intervals of 30 s is offline.
LIVENESS_SECONDS = 60.0


@pytest.mark.long
def test_an_app_waits_for_a_node_that_joins_later(federation: Federation) -> None:
    (early,) = federation.start_supernodes(early=OVER_GRPC)
    run_id = federation.run_app("nothing", "nodes=2")
    federation.wait_for_status(run_id, "running")

    (late,) = federation.start_supernodes(late=OVER_HTTP)
    federation.wait_for_status(run_id, "finished:completed")

    log = federation.log_of(run_id)
    assert f"node {early.node_id} answered" in log
    assert f"node {late.node_id} answered" in log


def test_a_question_to_a_node_that_goes_away_is_answered_with_an_error(
    federation: Federation,
) -> None:
    faithful, leaver, crasher = federation.start_supernodes(
        faithful=OVER_GRPC, leaver=OVER_HTTP, crasher=OVER_GRPC
    )
    run_id = federation.run_app("patient", 'nodes=3 slow-nodes="leaver crasher"')
    for node in (leaver, crasher):
        wait_until(lambda: node.took_part_in(run_id), PATIENCE, f"{node.name} to be asked")  # noqa: B023
    stream = federation.start_cli("patient", "log", str(run_id), "--stream")

    leaver.process.terminate()
    crasher.process.kill_all()
    crashed_at = time.monotonic()

    stream.wait_for_output(f"node {faithful.node_id}: answer\n")
    stream.wait_for_output(f"node {leaver.node_id}: {NODE_UNAVAILABLE}", timeout=PATIENCE)
    stream.wait_for_output(f"node {crasher.node_id}: {NODE_UNAVAILABLE}", timeout=PATIENCE)
    assert time.monotonic() - crashed_at > LIVENESS_SECONDS / 2
    federation.wait_for_status(run_id, "finished:completed")
    nodes = federation.nodes()
    assert (nodes[crasher.node_id], nodes[faithful.node_id]) == ("offline", "online")
