"""One cluster for all fault tests: each test breaks something and the fixture makes it whole."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.cluster import Cluster, Front, Size
from tests.faults.trial import BOTH, MIXED, Trial, Wires, running_trial
from tests.turns import in_turn, leave_to_long

FULL = os.environ.get("FLOWER_NATS_FAULTS_FULL") == "1"
"""Whether faults last their full time, instead of the shorter time that CI has."""

_HERE = Path(__file__).parent
_FOLDER = pytest.StashKey[Path]()
_LINES_SHOWN = 80


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these tests in one event loop, because the processes' clients live for the whole session.

    A test that is about the wires runs with one mixture; `make long` runs it with the other, too.
    """
    mark = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(mark, append=False)
            if not FULL and BOTH.mark in item.iter_markers("parametrize"):
                leave_to_long(item, "wires", sorted(MIXED))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Mix the wires of each trial's clients one way; in full, also the other way."""
    if "wires" not in metafunc.fixturenames or _says_wires(metafunc.definition):
        return
    ways = sorted(MIXED)
    chosen = ways if FULL else [in_turn(metafunc.definition.name, ways)]
    metafunc.parametrize("wires", chosen, indirect=True)


def _says_wires(test: pytest.Item) -> bool:
    return any("wires" in mark.args[0] for mark in test.iter_markers("parametrize"))


@pytest.fixture
def wires(request: pytest.FixtureRequest) -> Wires:
    """The wire that each client calls over."""
    return MIXED[request.param]


# Not of scope "session": while no test uses the cluster, it would still take part of a core.
@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def cluster(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[Cluster]:
    """The runtime, as real processes."""
    folder = tmp_path_factory.mktemp("faults")
    request.session.stash[_FOLDER] = folder
    one = Cluster(folder, Size(nats=int(os.environ.get("FAULTS_NATS", "3"))))
    try:
        await one.start()
        yield one
    finally:
        await one.close()


@pytest_asyncio.fixture(loop_scope="session")
async def running(
    cluster: Cluster, wires: Wires, request: pytest.FixtureRequest
) -> AsyncIterator[Trial]:
    """A run under way; the parameter, a `Front`, chooses the balancer."""
    async with running_trial(cluster, wires, getattr(request, "param", Front.TCP)) as one:
        yield one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of all logs beside a failure."""
    report = yield
    folder = item.session.stash.get(_FOLDER, None)
    if report.failed and folder and item.path.is_relative_to(_HERE):
        for log in sorted(folder.rglob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            report.sections.append((str(log), "\n".join(lines[-_LINES_SHOWN:])))
    return report
