"""`flower-nats down` returns after all processes that it ends are gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from flower_nats_cli.down import down

UP = """
import signal, sys, time
from pathlib import Path
from flower_nats_cli.datadir import DataDir

with DataDir(Path(sys.argv[1])).owned():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
time.sleep(1.0)
"""
"""Ends some time after it has released the directory, like Python on a busy machine."""


def test_it_returns_when_up_is_gone(data_dir: Path) -> None:
    up = subprocess.Popen([sys.executable, "-c", UP, str(data_dir)], stdout=subprocess.PIPE)
    try:
        assert up.stdout is not None
        assert up.stdout.readline() == b"ready\n"

        done = CliRunner().invoke(down, ["--data-dir", str(data_dir)])

        assert (done.exit_code, done.output) == (0, f"flower-nats (pid {up.pid}) has ended.\n")
        assert up.poll() == 0
    finally:
        up.kill()
        up.communicate()
