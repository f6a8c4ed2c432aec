"""The output of chaos: the table, and a verdict for each goal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks.chaos.plan import Plan
from benchmarks.chaos.recovery import Recovery, Spread
from benchmarks.chaos.result import Result
from benchmarks.report import Verdict, table_line

_TARGETS = {"gateway": 5.0, "superlink": 5.0, "nats": 10.0}
"""The longest wait in seconds that a kill may cause, by the kind of process."""

_SHOWN = 10


def table(results: Sequence[Result]) -> str:
    """Return the figures side by side, in Markdown."""
    lines = [table_line(["", *(one.name for one in results)])]
    lines.append(table_line(["---"] * (len(results) + 1)))
    for title, cells in _figures(results).items():
        lines.append(table_line([title, *cells]))
    kinds = dict.fromkeys(fault.kind for one in results for fault in one.faults)
    for kind in kinds:
        cells = [_recovered(one.recoveries, kind) for one in results]
        lines.append(table_line([f"recovery, {kind} (median / worst)", *cells]))
    longest = [f"{one.longest_wait:.2f} s" for one in results]
    lines.append(table_line(["longest wait of a call, whatever was killed in it", *longest]))
    return "\n".join(lines)


def _figures(results: Sequence[Result]) -> dict[str, list[str]]:
    return {
        "seconds": [f"{one.seconds:.0f}" for one in results],
        "kills": [_kills(one) for one in results],
        "starts that failed and were made again": [str(one.failed_starts) for one in results],
        "runs completed": [f"{one.completed} of {one.runs}" for one in results],
        "messages pushed": [str(one.pushed) for one in results],
        "outcomes (error replies)": [f"{one.outcomes} ({one.error_replies})" for one in results],
        "lost (no outcome at the end)": [str(one.lost) for one in results],
        "double outcomes": [str(one.doubles) for one in results],
        "handed out again": [str(one.repeated) for one in results],
        "logs not whole": [str(one.broken_logs) for one in results],
        "clients that died": [str(len(one.deaths)) for one in results],
        "nodes taken offline": [str(len(one.nodes_gone)) for one in results],
        "runs whose `flwr run`, `flwr log` broke off": [
            f"{one.refused}, {one.logs_broken_off}" for one in results
        ],
        "calls (tried again)": [f"{one.calls} ({one.retries})" for one in results],
        "round (median / worst)": [str(Spread.of(one.rounds)) for one in results],
    }


def _kills(one: Result) -> str:
    counts = Counter(fault.kind for fault in one.faults)
    return f"{len(one.faults)}: " + ", ".join(f"{n} {kind}" for kind, n in counts.items())


def _recovered(all_of_them: Iterable[Recovery], kind: str) -> str:
    found = [one.longest_wait for one in all_of_them if one.fault.kind == kind]
    return str(Spread.of(found)) if found else ""


def faults(one: Result, began: float) -> str:
    """Return a line for each kill."""
    return "\n".join(_fault(recovery, began) for recovery in one.recoveries)


def _fault(one: Recovery, began: float) -> str:
    fault, slowest = one.fault, one.slowest
    call = f"{slowest.method}, tries: {slowest.tries}" if slowest else "no call"
    back = f"serves again after {fault.back - fault.at:.1f} s" if fault.back else "not back"
    return (
        f"{fault.at - began:6.1f} s  {fault.name:12} longest wait {one.longest_wait:5.2f} s ({call}), "
        f"silence {one.silence:.2f} s, {back}"
    )


def verdicts(one: Result) -> list[Verdict]:
    """Judge each goal."""
    judged = [
        Verdict(one.completed == one.runs, f"{one.completed} of {one.runs} runs completed"),
        Verdict(not one.lost, f"{one.lost} messages lost"),
        Verdict(not one.doubles, f"{one.doubles} double outcomes"),
    ]
    for kind, limit in _TARGETS.items():
        found = [item.longest_wait for item in one.recoveries if item.fault.kind == kind]
        if found:
            text = (
                f"worst recovery from the kill of a {kind} {max(found):.1f} s (under {limit:.0f})"
            )
            judged.append(Verdict(max(found) < limit, text))
    return judged


def troubles(one: Result) -> str:
    """Return the first troubles of each kind."""
    found = {
        "not completed": one.troubles,
        "died": one.deaths,
        "given up by nodes": one.losses,
        "taken offline": [str(number) for number in one.nodes_gone],
    }
    lines = [
        f"{title} ({len(items)}): {item}"
        for title, items in found.items()
        for item in items[:_SHOWN]
    ]
    return "\n".join(lines)


def describe(plan: Plan) -> str:
    """Return a plan as text."""
    return (
        f"{plan.runs} runs, {plan.at_once} at once, of {plan.rounds} rounds over {plan.nodes_per_run} "
        f"of {plan.nodes} SuperNodes ({plan.real_nodes} real ones, asked by {plan.real_runs} runs); "
        f"a kill every {plan.every:g} s, start {plan.down:g} s later; seed {plan.seed}"
    )
