"""`flwr log`: every line once, in order, before the app prints the next line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.children import PATIENCE, Child, wait_until
from tests.e2e.federation import BOTH, Federation
from tests.e2e.servers import ServerOptions

LINE = re.compile(r"^line (\d+) printed at [\d.]+$", re.MULTILINE)
LINES = 20


@dataclass(frozen=True)
class Run:
    """A run with an app that prints each line after the test has seen the line before."""

    id: int
    seen: Path
    """The folder in which the app looks for a file for each line that was seen."""


@pytest.fixture(scope="module")
def server_options() -> ServerOptions:
    return ServerOptions(isolation="process")


@pytest.fixture(
    scope="module",
    params=[BOTH[0], *(pytest.param(one, marks=pytest.mark.long) for one in BOTH[1:])],
)
def run(federation: Federation, workspace: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """A run that prints twenty lines, followed over each wire."""
    version = request.param
    superexec = federation.of(version).start_superexec(f"superexec-{version}")
    seen = workspace / f"seen-{version}"
    seen.mkdir()
    config = f'lines={LINES} interval-seconds=0.0 seen="{seen}"'
    yield Run(federation.run_app("slow", config), seen)
    superexec.terminate()


def test_two_streams_of_a_running_app_show_each_line_before_the_next_is_printed(
    federation: Federation, run: Run
) -> None:
    streams = [
        federation.of(version).start_cli(
            f"reader-{run.id}-{version}", "log", str(run.id), "--stream"
        )
        for version in BOTH
    ]
    for number in range(1, LINES + 1):
        for stream in streams:
            until_shown(stream, number)
        (run.seen / str(number)).touch()

    for stream in streams:
        assert stream.wait(PATIENCE) == 0
        assert numbers_in(stream.output()) == list(range(1, LINES + 1))


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("flag", ["--show", "--stream"])
def test_the_log_of_a_finished_run_is_printed_once(
    federation: Federation, user: Federation, run: Run, flag: str
) -> None:
    for number in range(1, LINES + 1):
        (run.seen / str(number)).touch()
    federation.wait_for_status(run.id, "finished:completed")

    done = user.cli("log", str(run.id), flag)

    assert done.returncode == 0
    assert numbers_in(done.stdout) == list(range(1, LINES + 1))


def until_shown(stream: Child, number: int) -> None:
    """Wait until a stream shows a line."""
    what = f"line {number} to be shown"
    wait_until(lambda: number in numbers_in(stream.output()), PATIENCE, what)


def numbers_in(output: str) -> list[int]:
    """Return the numbers of the app's lines, in the order of their arrival."""
    return [int(number) for number in LINE.findall(output)]
