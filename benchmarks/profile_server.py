"""``python -m benchmarks.profile_server WIRE LINE``: where flower-nats spends its CPU on a line.

It needs ``py-spy`` in the environment. For gateway and superlink, it prints the functions with the
most samples of their own, and the functions with the most samples below them. The times of such a
run cannot be compared with others: sampling takes CPU.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.flower import VERSIONS, WIRES, flower
from benchmarks.plan import FULL
from benchmarks.processes import executable
from benchmarks.report import describe
from benchmarks.scenarios import Cell
from benchmarks.targets import FlowerNats, Target

_PARTS = ("gateway", "superlink")
_RATE = 200
_SHOWN = 25
_WAITING = ("_worker (", "EpollSelector.select", "Thread.run (", "_do_waitpid")
"""Frames of waiting threads that py-spy takes for working ones."""

_FRAMEWORK = ("runpy>", "click/", "asyncio/", "threading.py", "flower_nats_cli/")
"""Frames at the bottom of every stack, which tell nothing."""


@contextmanager
def sampling(target: Target, directory: Path) -> Iterator[dict[str, Path]]:
    """Sample the Python processes of ``target`` inside the context; the files exist after it."""
    files: dict[str, Path] = {}
    samplers = []
    for part, members in target.processes().items():
        for process in members if part in _PARTS else []:
            name = f"{part} {process.pid}"
            files[name] = directory / name
            options = ["--pid", str(process.pid), "--rate", str(_RATE), "--format", "raw"]
            command = [executable("py-spy"), "record", *options, "--output", str(files[name])]
            samplers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    try:
        yield files
    finally:
        for sampler in samplers:
            sampler.send_signal(signal.SIGINT)
            sampler.wait()


def top(stacks: str) -> str:
    """Return the busiest functions of a file of collapsed stacks (lines ``a;b;c COUNT``)."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if any(word in frames[-1] for word in _WAITING):
            continue
        own[frames[-1]] += int(count)
        told = (frame for frame in frames if not any(word in frame for word in _FRAMEWORK))
        below.update(dict.fromkeys(told, int(count)))
    total = own.total() or 1
    lines = [f"{total / _RATE:.1f} s sampled"]
    for title, counter in (("own", own), ("below", below)):
        lines.append(f"  {title}:")
        lines += [f"  {n / total:6.1%}  {frame}" for frame, n in counter.most_common(_SHOWN)]
    return "\n".join(lines)


def main() -> None:
    """Measure one line on flower-nats under the sampler and print where the time went."""
    wire, line = {one.lower(): one for one in WIRES}[sys.argv[1]], sys.argv[2]
    (scenario,) = (s for s in FULL[wire] if s.name == line)
    cell = Cell()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        directory = Path(name)
        server = FlowerNats(directory, flower(VERSIONS[wire]), tls=scenario.tls)
        with server as target, sampling(target, directory) as files:
            scenario.measure(target, cell)
        print(f"{scenario.title}: {describe(cell)}")
        for part, file in files.items():
            print(f"\n{part}: {top(file.read_text())}")


if __name__ == "__main__":
    main()
