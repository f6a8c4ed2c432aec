"""`flwr log`: every line once, in order, soon after it was printed."""

from __future__ import annotations

import re
import statistics
import time

import pytest

from tests.e2e.federation import Federation
from tests.harness.children import NotYetError

LINE = re.compile(r"^line (\d+) printed at ([\d.]+)$", re.MULTILINE)
LINES = 20


@pytest.fixture(scope="module")
def run_id(federation: Federation) -> int:
    """A run that prints twenty lines."""
    return federation.run_app("slow", f"lines={LINES} interval-seconds=0.3")


def test_two_streams_of_a_running_app_show_lines_soon_after_they_were_printed(
    federation: Federation, run_id: int
) -> None:
    streams = [
        federation.start_cli(f"reader-{number}", "log", str(run_id), "--stream")
        for number in range(2)
    ]
    delays: dict[int, float] = {}
    deadline = time.monotonic() + 60
    while streams[0].exit_code is None:
        now = time.time()
        for number, printed_at in LINE.findall(streams[0].output()):
            delays.setdefault(int(number), now - float(printed_at))
        if time.monotonic() > deadline:
            raise NotYetError("the stream did not end with its run")
        time.sleep(0.02)

    assert [stream.wait(10.0) for stream in streams] == [0, 0]
    assert [numbers_in(stream.output()) for stream in streams] == [list(range(1, LINES + 1))] * 2
    # The ServerApp uploads its lines every 0.2 s; the rest is for a machine that has other work.
    assert statistics.median(delays.values()) < 1.0
    assert list(delays) == sorted(delays)


@pytest.mark.parametrize("flag", ["--show", "--stream"])
def test_the_log_of_a_finished_run_is_printed_once(
    federation: Federation, run_id: int, flag: str
) -> None:
    federation.wait_for_status(run_id, "finished:completed")

    done = federation.cli("log", str(run_id), flag)

    assert done.returncode == 0
    assert numbers_in(done.stdout) == list(range(1, LINES + 1))


def numbers_in(output: str) -> list[int]:
    """Return the numbers of the lines that the app printed, as they came."""
    return [int(number) for number, _ in LINE.findall(output)]
