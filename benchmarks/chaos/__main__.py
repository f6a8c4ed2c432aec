"""``python -m benchmarks.chaos``: kill processes under load, count what is lost, and print it."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace

import structlog
import uvloop

from benchmarks import report as machine
from benchmarks.chaos import report
from benchmarks.chaos.plan import FULL, QUICK, Plan
from benchmarks.chaos.result import Result
from benchmarks.chaos.servers import SERVERS
from benchmarks.chaos.trial import endure


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look, as CI takes it")
    for name in ("runs", "nodes", "replicas", "seed"):
        parser.add_argument(f"--{name}", type=int, help=f"default: {getattr(FULL, name)}")
    parser.add_argument("--every", type=float, help=f"seconds; default: {FULL.every:g}")
    parser.add_argument(
        "--stock-every",
        type=float,
        help="seconds between two kills of the stock SuperLink; by default it dies as often as each "
        "single process of the other does",
    )
    parser.add_argument(
        "--target", action="append", choices=list(SERVERS), help="may be repeated (default: all)"
    )
    return parser.parse_args(arguments)


def plans(options: argparse.Namespace) -> dict[str, Plan]:
    """Return the plan for each target."""
    plan = QUICK if options.quick else FULL
    given = {
        name: value
        for name in ("runs", "nodes", "replicas", "seed", "every")
        if (value := getattr(options, name)) is not None
    }
    plan = replace(plan, **given)
    fair = plan.every * plan.processes
    spared = replace(plan, every=options.stock_every or fair, limit=plan.stock_limit)
    both = {"flower-nats": plan, "stock": spared}
    return {target: both[target] for target in options.target or both}


async def measure(target: str, plan: Plan) -> Result:
    print(f"\n{target}: {report.describe(plan)}", flush=True)
    return await endure(target, plan)


def main() -> int:
    """Measure, print, and return 1 if flower-nats has lost or doubled anything."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(machine.machine(), flush=True)
    results = {
        target: uvloop.run(measure(target, plan))
        for target, plan in plans(parse(sys.argv[1:])).items()
    }
    print("\n" + report.table(list(results.values())))
    for one in results.values():
        print(f"\n{one.name}:", *report.verdicts(one), report.troubles(one), sep="\n")
    return int(any(not one.is_whole for name, one in results.items() if name == "flower-nats"))


if __name__ == "__main__":
    sys.exit(main())
