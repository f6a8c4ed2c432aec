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
def finished_run(federation: Federation) -> int:
    """A run that printed twenty lines and is over."""
    run_id = federation.run_app("slow", f"lines={LINES} interval-seconds=0.01")
    federation.wait_for_status(run_id, "finished:completed")
    return run_id


def test_show_prints_what_was_logged_so_far_and_returns(
    federation: Federation, finished_run: int
) -> None:
    done = federation.cli("log", str(finished_run), "--show")

    assert done.returncode == 0
    assert numbers_in(done.stdout) == list(range(1, LINES + 1))


def test_streaming_a_finished_run_prints_every_line_once_and_ends(
    federation: Federation, finished_run: int
) -> None:
    done = federation.cli("log", str(finished_run), "--stream")

    assert done.returncode == 0
    assert numbers_in(done.stdout) == list(range(1, LINES + 1))


def test_streaming_a_running_app_shows_lines_soon_after_they_were_printed(
    federation: Federation,
) -> None:
    run_id = federation.run_app("slow", f"lines={LINES} interval-seconds=0.3")
    stream = federation.start_cli("prompt-stream", "log", str(run_id), "--stream")
    delays: dict[int, float] = {}
    deadline = time.monotonic() + 60
    while stream.exit_code is None:
        now = time.time()
        for number, printed_at in LINE.findall(stream.output()):
            delays.setdefault(int(number), now - float(printed_at))
        if time.monotonic() > deadline:
            raise NotYetError("the stream did not end with its run")
        time.sleep(0.02)

    assert stream.exit_code == 0
    assert numbers_in(stream.output()) == list(range(1, LINES + 1))
    # The ServerApp uploads its lines every 0.2 s; the rest is for a machine that has other work.
    assert statistics.median(delays.values()) < 1.0
    assert list(delays) == sorted(delays)


def test_two_readers_of_one_run_see_the_same(federation: Federation) -> None:
    run_id = federation.run_app("slow", f"lines={LINES} interval-seconds=0.05")
    streams = [
        federation.start_cli(f"reader-{number}", "log", str(run_id), "--stream")
        for number in range(2)
    ]

    assert [stream.wait(60.0) for stream in streams] == [0, 0]
    assert [numbers_in(stream.output()) for stream in streams] == [list(range(1, LINES + 1))] * 2


def numbers_in(output: str) -> list[int]:
    """Return the numbers of the lines that the app printed, as they came."""
    return [int(number) for number, _ in LINE.findall(output)]
