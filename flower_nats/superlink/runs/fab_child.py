"""The process that checks one FAB: it reads the FAB from stdin and writes the result to stdout.

`fab_checks` starts it. The process imports little, so that it is ready within a tenth of a second.
"""

import json
import os
import resource
import sys
from dataclasses import asdict

from flower_nats.model.fab import InvalidFab, read_fab

CPU_SECONDS = 10
"""Seconds of computing. A FAB that unpacks to the allowed maximum takes 1.5 s on a usual
machine."""

MEMORY_BYTES = 256 * 1024 * 1024
"""Bytes of address space. The largest accepted FABs take less than half of it."""

INFO = "info"
"""Key of the FAB's description in the answer."""

REFUSED = "refused"
"""Key of the refusal's reason in the answer."""

_TOO_MUCH_MEMORY = (
    f"Reading the app's FAB takes more than {MEMORY_BYTES:,} bytes of memory. Remedy: put fewer or "
    "smaller files into it, and simplify its pyproject.toml."
)

_NICE = 5
"""The nice value of a check, which has time."""


def main() -> None:
    """Check the FAB that comes on stdin."""
    os.nice(_NICE)
    for kind, limit in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        # The hard limit is a second higher, because it kills the process without a reason.
        resource.setrlimit(kind, (limit, limit + 1))
    try:
        answer: dict[str, object] = {INFO: asdict(read_fab(sys.stdin.buffer.read()))}
    except InvalidFab as exc:
        answer = {REFUSED: str(exc)}
    except MemoryError:
        answer = {REFUSED: _TOO_MUCH_MEMORY}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
