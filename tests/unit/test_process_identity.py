"""The processes that a process has started, in the system's own data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flower_nats.embedded import identity
from flower_nats.embedded.identity import descendants_of, started_by

_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin)
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("tells_children", [True, False])
def test_what_a_process_has_started_is_found(
    monkeypatch: pytest.MonkeyPatch, tells_children: bool
) -> None:
    if not tells_children:
        monkeypatch.setattr(identity, "_CHILDREN", Path("/proc/nothing"))
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        grandchild = int(parent.stdout.readline())

        assert [one.pid for one in started_by(parent.pid)] == [grandchild]
        assert {parent.pid, grandchild} <= {one.pid for one in started_by(os.getpid())}
        assert [one.pid for one in descendants_of(parent.pid)] == [grandchild]

        parent.stdin.close()
    assert started_by(parent.pid) == []
