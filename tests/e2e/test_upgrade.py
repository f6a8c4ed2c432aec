"""Upgrades of a data directory from former releases, and the way back (docs/operations.md)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.children import PATIENCE, wait_until
from harness.environment import SCRIPTS, clean_environment
from harness.former_releases import FORMER, Release
from tests.e2e.federation import Federation, SuperNode
from tests.e2e.servers import STOCK, ServerOptions, ServerUnderTest

# The environment of a former release takes a minute to build. The short form is
# `tests/integration/test_upgrade`.
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(STOCK, reason="stock has no former release of ours"),
    pytest.mark.skipif(
        not all(release.is_at_hand for release in FORMER),
        reason="needs a clone with former commits",
    ),
]


class Upgrade:
    """A runtime of a former release, with the stock clients of that release."""

    def __init__(self, release: Release, folder: Path, options: ServerOptions) -> None:
        self.release = release
        self.server = ServerUnderTest(folder / "server", options)
        self.server.folder.mkdir(parents=True)
        self.server.release = release
        self.server.start()
        self.data = self.server.folder / "data"
        self.clients = Federation(self.server, folder / "clients").of(release.flwr)
        self.nodes = self.clients.start_supernodes(alpha=release.flwr, beta=release.flwr)

    def down(self, release: Release | None = None) -> str:
        """End the runtime with the command of a release, or with the current command."""
        program = (
            release.environment().program("flower-nats") if release else SCRIPTS / "flower-nats"
        )
        # The command of 0.1.0 asks for no confirmation.
        yes = () if release and release.version == "0.1.0" else ("--yes",)
        done = subprocess.run(
            [str(program), "down", "--data-dir", str(self.data), *yes],
            env=clean_environment({}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, release: Release | None = None) -> None:
        """Start a release, or the current code, on the directory."""
        self.server.release = release
        self.server.start()

    def close(self) -> None:
        """End the clients and the server."""
        self.clients.close()
        self.server.stop()


def test_finished_runs_logs_and_nodes_are_there_after_an_upgrade(from_former: Upgrade) -> None:
    clients = from_former.clients
    finished, _ = clients.run_to_end("nothing")
    before = facts_of(clients, finished)
    nodes = clients.nodes()
    cut_off = begin_run(clients, from_former.nodes)

    # The current command, first in an operator's PATH, also ends a runtime of a former release.
    assert "has ended" in from_former.down()
    copy = from_former.data.with_name("copy")
    # `cp -a`, unlike shutil, keeps owners: PostgreSQL has another owner if root runs `up`.
    subprocess.run(["cp", "-a", from_former.data, copy], check=True)
    from_former.start()

    assert facts_of(clients, finished) == before
    assert set(clients.nodes()) == set(nodes)
    # The run's ServerApp has ended with the SuperExec of `up`.
    clients.wait_for_status(cut_off, "finished:failed")
    assert "round 1 gathered 2 answers" in clients.log_of(cut_off)
    # The SuperNodes were not restarted.
    _, said = clients.run_to_end("nothing")
    assert "round 1 gathered 2 answers" in said

    # The way back: the copy from before the upgrade, and its release.
    from_former.down()
    shutil.move(from_former.data, from_former.data.with_name("upgraded"))
    shutil.move(copy, from_former.data)
    from_former.start(from_former.release)
    assert facts_of(clients, finished) == before
    _, said = clients.run_to_end("nothing")
    assert "round 1 gathered 2 answers" in said
    from_former.down(from_former.release)


@pytest.mark.parametrize("isolation", ["process"])
def test_a_run_whose_serverapp_is_elsewhere_goes_on_over_an_upgrade(from_former: Upgrade) -> None:
    clients = from_former.clients
    superexec = clients.start_superexec("superexec")
    run_id = begin_run(clients, from_former.nodes, "rounds=4 seconds=2.0")

    # This is the worst end: a crash.
    from_former.server.process.kill()
    from_former.start()

    clients.wait_for_status(run_id, "finished:completed")
    log = clients.log_of(run_id)
    assert re.findall(r"round (\d+) gathered 2 answers", log) == ["1", "2", "3", "4"]
    superexec.terminate()


def facts_of(clients: Federation, run_id: int) -> tuple[str, str]:
    return clients.status_of(run_id), clients.log_of(run_id)


def begin_run(
    clients: Federation, nodes: list[SuperNode], config: str = "rounds=1000 seconds=0.1"
) -> int:
    """Start a run, and wait until it is at work."""
    run_id = clients.run_app("nothing", config)
    wait_until(
        lambda: "round 1 " in clients.cli("log", str(run_id), "--show").stdout,
        PATIENCE,
        "a run to be at work",
        every=1.0,
    )
    assert all(node.took_part_in(run_id) for node in nodes)
    return run_id


@pytest.fixture
def isolation() -> str:
    return "subprocess"


@pytest.fixture(params=FORMER, ids=lambda release: release.version)
def from_former(
    request: pytest.FixtureRequest, tmp_path: Path, isolation: str
) -> Iterator[Upgrade]:
    upgrade = Upgrade(request.param, tmp_path, ServerOptions(isolation=isolation))
    yield upgrade
    upgrade.close()
