"""The worker's side of the pipes: commands on standard input, answers on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def commands() -> Iterable[dict[str, Any]]:
    """Yield a worker's commands, until its standard input ends."""
    for line in sys.stdin:
        yield json.loads(line)


def reserve_stdout() -> Callable[[Mapping[str, object]], None]:
    """Keep standard output for answers, and send all other prints to the log."""
    channel = sys.stdout
    sys.stdout = sys.stderr

    def answer(value: Mapping[str, object]) -> None:
        channel.write(json.dumps(value) + "\n")
        channel.flush()

    return answer
