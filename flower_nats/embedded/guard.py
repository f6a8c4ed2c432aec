"""Runs another program, and ends all its descendants after it.

Run as a script (`python guard.py [--user NAME] COMMAND…`) as the leader of a process group, only
with the standard library, so that it costs little. The program runs as the user. The guard passes
signals to end on to the program. After the program's end, its descendants get a few seconds to end
by themselves, and are then killed. A stock `flwr-simulation` watches for the end of its SuperExec,
but may not react for minutes, and neither may its Ray processes.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_GRACE_SECONDS = 4.0
"""Seconds for ServerApps to send their last lines and their result."""
_POLL_SECONDS = 0.05
_PROC = Path("/proc")
_CHILD = Path(__file__).with_name("child.py")


def main(arguments: list[str]) -> int:
    """Run a command to its end, then end its descendants; return its exit code."""
    user = arguments[:2] if arguments[0] == "--user" else []
    command = arguments[len(user) :]
    wrapper = [sys.executable, "-I", "-S", str(_CHILD), *user]
    wrapper += [str(os.getpid()), str(int(signal.SIGTERM))]
    # The command ends with the guard, even if the guard is killed.
    program = subprocess.Popen([*wrapper, *command])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda told, _frame: program.send_signal(told))
    code = program.wait()
    deadline = time.monotonic() + _GRACE_SECONDS
    while _others() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for pid in _others():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _others() -> list[int]:
    """Return the other processes of our group that have not ended (known on Linux only)."""
    found = []
    for entry in _PROC.glob("[0-9]*"):
        with suppress(OSError):
            # The program's name, in parentheses, may contain blanks, so fields are counted after
            # it.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            state, group = fields[0], int(fields[2])
            if group == os.getpgrp() and state not in "ZX" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
