"""`flower-nats backup` while stock clients are at work; then `restore`, and `up` on the result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.children import PATIENCE, wait_until
from harness.environment import SCRIPTS, clean_environment
from tests.e2e.federation import OVER_GRPC, OVER_HTTP, Federation
from tests.e2e.servers import STOCK, ServerUnderTest

# `tests/integration/test_backup` is the short form.
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(STOCK, reason="stock has no such command"),
]


def flower_nats(*words: str | Path) -> str:
    """Run the command like an operator."""
    done = subprocess.run(
        [str(SCRIPTS / "flower-nats"), *map(str, words)],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_runtime_whose_disk_was_lost_is_restored(
    federation_server: ServerUnderTest, federation: Federation, workspace: Path
) -> None:
    data, backup = federation_server.folder / "data", workspace / "backup"
    nodes = federation.start_supernodes(alpha=OVER_HTTP, beta=OVER_GRPC)
    finished, _ = federation.run_to_end("nothing")
    run, log = federation.details_of(finished), federation.log_of(finished)
    at_work = federation.run_app("nothing", "rounds=1000 seconds=0.1")
    wait_until(
        lambda: "round 2" in federation.cli("log", str(at_work), "--show").stdout,
        PATIENCE,
        "a run to be at work",
        every=1.0,
    )

    flower_nats("backup", backup, "--data-dir", data)
    federation_server.process.kill()
    data.rename(data.with_name("lost"))
    said = flower_nats("restore", backup, "--data-dir", data)
    assert f"flower-nats up --data-dir {data}" in said
    federation_server.start()

    assert federation.details_of(finished) == run
    assert federation.log_of(finished) == log
    federation.wait_for_status(at_work, "finished:failed")
    assert "round 1 gathered 2 answers" in federation.log_of(at_work)
    # The SuperNodes have noticed nothing.
    again, said = federation.run_to_end("nothing")
    assert federation.status_of(again) == "finished:completed"
    assert "round 1 gathered 2 answers" in said
    assert set(federation.nodes()) == {node.node_id for node in nodes}

    # A directory on which nothing runs can be copied, too.
    federation_server.stop()
    flower_nats("backup", workspace / "later", "--data-dir", data)
    flower_nats("restore", workspace / "later", "--data-dir", data.with_name("moved"))
    data.rename(data.with_name("former"))
    data.with_name("moved").rename(data)
    federation_server.start()
    assert federation.details_of(finished) == run
    assert federation.log_of(finished) == log
    assert federation.status_of(again) == "finished:completed"
