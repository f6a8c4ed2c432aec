"""`flower-nats demo`: a runtime, SuperNodes and a run with one command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil

from harness.environment import SCRIPTS, clean_environment


def test_the_demo_trains_a_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = clean_environment({"TMPDIR": str(tmp_path)})

    done = subprocess.run(
        [str(SCRIPTS / "flower-nats"), "demo", "--rounds", "1"],
        env=environment,
        capture_output=True,
        text=True,
        # Alone it takes 25 s. Beside other tests it has taken 105 s.
        timeout=300.0,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 1  accuracy 0." in done.stdout
    assert "The run has completed" in done.stdout
    assert "How to go on" in done.stdout
    assert os.listdir(tmp_path) == []
    assert not [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or [])
    ]
