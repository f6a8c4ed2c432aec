"""``python -m benchmarks``: measure stock and flower-nats in turn, and print the table."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc

from benchmarks import report
from benchmarks.plan import FULL, QUICK
from benchmarks.processes import ChildFailed
from benchmarks.scenarios import Cell, Scenario
from benchmarks.targets import TARGETS, Target


def measure(scenario: Scenario, target: type[Target]) -> Cell:
    """One cell of the table, on a server started for it alone."""
    cell = Cell()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        try:
            with target(Path(directory)) as running:
                cell.durability = running.durability()
                scenario.measure(running, cell)
        except (ChildFailed, grpc.RpcError, subprocess.CalledProcessError) as exc:
            cell.failure = str(exc)
    return cell


def run(scenario: Scenario, targets: list[type[Target]]) -> dict[str, Cell]:
    """One line of the table: the targets in turn."""
    row: dict[str, Cell] = {}
    for target in targets:
        if target.name in scenario.skip:
            continue
        row[target.name] = measure(scenario, target)
        print(report.details(scenario, target.name, row[target.name]), flush=True)
    return row


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in under two minutes")
    parser.add_argument(
        "--only",
        action="append",
        choices=[scenario.name for scenario in FULL],
        help="a line to measure; may be repeated",
    )
    parser.add_argument(
        "--target",
        action="append",
        choices=[target.key for target in TARGETS],
        help="a server to measure; may be repeated (default: all)",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Measure, print, and return 1 if something could not be measured."""
    options = parse(sys.argv[1:])
    plan = QUICK if options.quick else FULL
    scenarios = [s for s in plan if not options.only or s.name in options.only]
    targets = [t for t in TARGETS if not options.target or t.key in options.target]
    if not scenarios:
        sys.exit(f"--quick measures {', '.join(s.name for s in plan)} only.")
    start = time.monotonic()
    print(report.machine(), end="\n\n", flush=True)
    results = [(scenario, run(scenario, targets)) for scenario in scenarios]
    print("\n" + report.table(results, targets), end="\n\n")
    print(report.durability(row for _, row in results))
    print(f"Measured in {(time.monotonic() - start) / 60:.1f} minutes.")
    return int(any(cell.failure for _, row in results for cell in row.values()))


if __name__ == "__main__":
    sys.exit(main())
