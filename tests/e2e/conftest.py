"""One server per module, stock clients around it, and their logs when a test fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.federation import BOTH, OVER_GRPC, OVER_HTTP, Federation, SuperNode
from tests.e2e.servers import ServerOptions, ServerUnderTest, running_server
from tests.turns import in_turn, leave_to_long

LOG_LINES_SHOWN = 60
_HERE = Path(__file__).parent
WORKSPACE = pytest.StashKey[Path]()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A directory for all files of a module's servers and clients."""
    folder = tmp_path_factory.mktemp(request.module.__name__.rsplit(".", maxsplit=1)[-1])
    request.node.stash[WORKSPACE] = folder
    return folder


@pytest.fixture(scope="module")
def server_options() -> ServerOptions:
    """The options of a module's server; override this in the module."""
    return ServerOptions()


@pytest.fixture(scope="module")
def federation_server(workspace: Path, server_options: ServerOptions) -> Iterator[ServerUnderTest]:
    """A server without clients."""
    with running_server(workspace / "server", server_options) as server:
        yield server


@pytest.fixture(scope="module")
def federation(federation_server: ServerUnderTest, workspace: Path) -> Iterator[Federation]:
    """Clients of the module's server; none is started yet."""
    clients = Federation(federation_server, workspace / "clients")
    yield clients
    clients.close()


@pytest.fixture(scope="module")
def supernodes(federation: Federation) -> list[SuperNode]:
    """Two SuperNodes, one over each wire, which stay online while the module runs."""
    return federation.start_supernodes(alpha=OVER_HTTP, beta=OVER_GRPC)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose one of the two flwr versions, by turns, for a test that does not choose itself."""
    chosen = any(
        "version" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    )
    if "version" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("version", [in_turn(metafunc.definition.name, BOTH)])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave one of the two flwr versions to `make long` where a test names both."""
    for item in items:
        for mark in item.iter_markers("parametrize"):
            if item.path.is_relative_to(_HERE) and mark.args == ("version", BOTH):
                leave_to_long(item, "version", BOTH)


@pytest.fixture
def user(federation: Federation, version: str) -> Federation:
    """A user with one version of flwr."""
    return federation.of(version)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of all logs of a module's processes beside a failure in it."""
    report = yield
    module = item.getparent(pytest.Module)
    workspace = module.stash.get(WORKSPACE, None) if module else None
    if report.failed and workspace:
        for log_file in sorted(workspace.rglob("*.log")):
            lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
            report.sections.append((str(log_file), "\n".join(lines[-LOG_LINES_SHOWN:])))
    return report
