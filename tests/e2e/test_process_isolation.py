"""`--isolation process`: the operator runs the SuperExec, which shares a secret with the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.children import PATIENCE
from tests.e2e.federation import BOTH, Federation
from tests.e2e.servers import ServerOptions


@pytest.fixture(scope="module")
def secret(workspace: Path) -> Path:
    return secret_file(workspace / "right", b"the right secret")


@pytest.fixture(scope="module")
def server_options(secret: Path) -> ServerOptions:
    return ServerOptions(isolation="process", superexec_secret=secret)


@pytest.mark.parametrize("version", BOTH)
def test_only_a_superexec_with_the_right_secret_gets_work(
    federation: Federation, version: str, secret: Path, workspace: Path
) -> None:
    operator = federation.of(version)
    run_id = federation.run_app("slow", "lines=3")
    wrong = secret_file(workspace / "wrong", b"another secret")
    without_work = [
        operator.start_superexec(f"superexec-{version}-wrong-secret", wrong),
        operator.start_superexec(f"superexec-{version}-no-secret"),
    ]

    for superexec in without_work:
        superexec.wait(PATIENCE)
    assert federation.status_of(run_id) == "pending"

    right = operator.start_superexec(f"superexec-{version}-right-secret", secret)
    federation.wait_for_status(run_id, "finished:completed")
    assert "line 3 printed" in federation.log_of(run_id)
    right.terminate()


def secret_file(path: Path, secret: bytes) -> Path:
    path.write_bytes(secret)
    return path
