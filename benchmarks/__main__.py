"""``python -m benchmarks``: measure stock and flower-nats in turn, and print the tables.

Over gRPC, the clients and the stock server are flwr 1.33; over HTTP, the newest known flwr.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks import report
from benchmarks.fleet import Refused
from benchmarks.flower import VERSIONS, WIRES, NotMeasured, flower, wire_of
from benchmarks.plan import FULL, QUICK
from benchmarks.processes import ChildFailed, allow_files
from benchmarks.scenarios import Cell, Scenario
from benchmarks.targets import TARGETS, Target
from harness.flower import Flower
from harness.flower_environments import InstallError

_LINES = list(dict.fromkeys(line.name for wire in WIRES for line in FULL[wire]))


@dataclass(frozen=True)
class Part:
    """The lines to measure with the clients of one flwr."""

    flower: Flower
    lines: list[Scenario]


def measure(scenario: Scenario, target: type[Target], clients: Flower) -> Cell:
    """Measure one cell of the table, on a server that is started for this cell alone."""
    cell = Cell(load=os.getloadavg()[0])
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        try:
            with target(Path(directory), clients, tls=scenario.tls) as running:
                cell.durability = running.durability()
                scenario.measure(running, cell)
        except (ChildFailed, Refused, OSError, grpc.RpcError, subprocess.CalledProcessError) as exc:
            cell.failure = str(exc)
    return cell


def run(scenario: Scenario, targets: list[type[Target]], clients: Flower) -> dict[str, Cell]:
    """Measure one line of the table: the targets in turn."""
    row: dict[str, Cell] = {}
    for target in targets:
        if target.name in scenario.skip:
            continue
        row[target.name] = measure(scenario, target, clients)
        what = f"{scenario.name}, {wire_of(clients.version)}, {target.name}"
        print(report.details(what, row[target.name]), flush=True)
    return row


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "line",
        nargs="*",
        metavar="LINE",
        help=f"what to measure (default: all): {', '.join(_LINES)}",
    )
    parser.add_argument("--quick", action="store_true", help="a look in a few minutes")
    parser.add_argument(
        "--wire",
        action="append",
        choices=[wire.lower() for wire in WIRES],
        help="the wire to measure; may be repeated (default: both)",
    )
    parser.add_argument(
        "--flwr",
        action="append",
        metavar="VERSION",
        help="the flwr to measure with, on the wire that it speaks; may be repeated (default: "
        f"{' and '.join(VERSIONS.values())})",
    )
    parser.add_argument(
        "--target",
        action="append",
        choices=[target.key for target in TARGETS],
        help="a server to measure; may be repeated (default: all)",
    )
    options = parser.parse_args(arguments)
    for line in options.line:
        if line not in _LINES:
            parser.error(f"{line} is not one of {', '.join(_LINES)}")
    return options


def plan(options: argparse.Namespace) -> list[Part]:
    """Return the lines to measure, by flwr.

    Raises:
        NotMeasured, InstallError
    """
    lines = QUICK if options.quick else FULL
    wires = [wire for wire in WIRES if wire.lower() in (options.wire or [wire.lower()])]
    versions = options.flwr or [VERSIONS[wire] for wire in wires]
    parts = []
    for version in versions:
        wanted = [s for s in lines[wire_of(version)] if not options.line or s.name in options.line]
        if wanted:
            parts.append(Part(flower(version), wanted))
    return parts


def main() -> int:
    """Measure, print, and return 1 if something could not be measured."""
    options = parse(sys.argv[1:])
    allow_files()
    targets = [t for t in TARGETS if not options.target or t.key in options.target]
    try:
        parts = plan(options)
    except (NotMeasured, InstallError) as exc:
        sys.exit(str(exc))
    if not parts:
        sys.exit("There is no such line on that wire, or --quick leaves it out.")
    start = time.monotonic()
    print(report.machine(), end="\n\n", flush=True)
    tables, cells = [], []
    for part in parts:
        results = [(line, run(line, targets, part.flower)) for line in part.lines]
        title = f"flwr {part.flower.version}, {wire_of(part.flower.version)}:"
        tables.append(f"{title}\n\n{report.table(results, targets)}\n")
        cells += [row for _, row in results]
    print("\n" + "\n".join(tables))
    print(report.durability(cells))
    print(f"Measured in {(time.monotonic() - start) / 60:.1f} minutes.")
    return int(any(cell.failure for row in cells for cell in row.values()))


if __name__ == "__main__":
    sys.exit(main())
