"""`flwr log`: every line once, in order, soon after it was printed."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator

import pytest

from harness.children import NotYetError
from tests.e2e.federation import BOTH, Federation
from tests.e2e.servers import ServerOptions

LINE = re.compile(r"^line (\d+) printed at ([\d.]+)$", re.MULTILINE)
LINES = 20


@pytest.fixture(scope="module")
def server_options() -> ServerOptions:
    return ServerOptions(isolation="process")


@pytest.fixture(scope="module", params=BOTH)
def run_id(federation: Federation, request: pytest.FixtureRequest) -> Iterator[int]:
    """A run that prints twenty lines, over each wire."""
    version = request.param
    superexec = federation.of(version).start_superexec(f"superexec-{version}")
    yield federation.run_app("slow", f"lines={LINES} interval-seconds=0.3")
    superexec.terminate()


def test_two_streams_of_a_running_app_show_lines_soon_after_they_were_printed(
    federation: Federation, run_id: int
) -> None:
    streams = [
        federation.of(version).start_cli(
            f"reader-{run_id}-{version}", "log", str(run_id), "--stream"
        )
        for version in BOTH
    ]
    delays: list[dict[int, float]] = [{} for _ in streams]
    deadline = time.monotonic() + 60
    while any(stream.exit_code is None for stream in streams):
        now = time.time()
        for stream, seen in zip(streams, delays, strict=True):
            for number, printed_at in LINE.findall(stream.output()):
                seen.setdefault(int(number), now - float(printed_at))
        if time.monotonic() > deadline:
            raise NotYetError("the stream did not end with its run")
        time.sleep(0.02)

    for stream, seen in zip(streams, delays, strict=True):
        assert stream.exit_code == 0
        assert numbers_in(stream.output()) == list(range(1, LINES + 1))
        # The ServerApp uploads its lines every 0.2 s; the rest is for a machine that has other work.
        assert statistics.median(seen.values()) < 1.0
        assert list(seen) == sorted(seen)


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("flag", ["--show", "--stream"])
def test_the_log_of_a_finished_run_is_printed_once(
    federation: Federation, user: Federation, run_id: int, flag: str
) -> None:
    federation.wait_for_status(run_id, "finished:completed")

    done = user.cli("log", str(run_id), flag)

    assert done.returncode == 0
    assert numbers_in(done.stdout) == list(range(1, LINES + 1))


def numbers_in(output: str) -> list[int]:
    """Return the numbers of the lines that the app printed, as they came."""
    return [int(number) for number, _ in LINE.findall(output)]
