"""The benchmark's output: the machine, the table, each promise, and the details of the figures."""

from __future__ import annotations

import os
import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.scenarios import Ceiling, Cell, Goal, Growth, Scenario
from benchmarks.targets import FlowerNats, Target

Row = Mapping[str, Cell]
"""The cells of a line by target."""

Rows = Sequence[tuple[Scenario, Row]]

_OURS = FlowerNats.name
_MB = 1_000_000
_SHOWN = 6
"""Kinds of answers that are listed; the others are summed up."""


@dataclass(frozen=True)
class Verdict:
    """Whether a promise holds, and the figures that show this."""

    met: bool
    text: str

    def __str__(self) -> str:
        return f"{'met' if self.met else 'MISSED'}: {self.text}"


def verdicts(scenario: Scenario, row: Row, others: Rows = ()) -> list[Verdict]:
    """Judge every promise of a line for which all figures were measured.

    ``others`` are the lines of the same wire.
    """
    ours = row.get(_OURS)
    if ours is None or ours.failure:
        return []
    judged = [_judge(goal, ours, row, others) for goal in scenario.goals]
    if scenario.edge_memory_limit is not None:
        judged.append(_judge_memory(ours, scenario.edge_memory_limit))
    return [one for one in judged if one is not None]


def _judge(goal: Goal | Ceiling | Growth, ours: Cell, row: Row, others: Rows) -> Verdict | None:
    if isinstance(goal, Ceiling):
        mine = getattr(ours, goal.measure)
        met = mine <= goal.limit and not ours.unfinished and not ours.dead
        return Verdict(met, f"{mine:.3f} (at most {goal.limit:.3f})")
    if isinstance(goal, Growth):
        shorter = [row[_OURS] for one, row in others if one.name == goal.line and _OURS in row]
        if not shorter or shorter[0].failure:
            return None
        times = ours.seconds / shorter[0].seconds
        text = f"{times:.1f} times {goal.line} (at most {goal.factor:.1f})"
        return Verdict(times <= goal.factor and not ours.lost, text)
    stock = row.get(goal.than)
    return None if stock is None or stock.failure else _compare(goal, ours, stock)


def _compare(goal: Goal, ours: Cell, stock: Cell) -> Verdict:
    mine, theirs = getattr(ours, goal.measure), getattr(stock, goal.measure)
    less = "less than " if stock.unfinished else ""
    text = f"{less}{ratio(mine, theirs)} of {goal.than} (at most 1/{1 / goal.factor:.3g})"
    met = mine <= goal.factor * theirs and not ours.lost and not ours.unfinished
    return Verdict(met, text)


def ratio(part: float, whole: float) -> str:
    """Return ``part`` as 1/n of ``whole``."""
    return f"1/{whole / part:.1f}" if part else "none"


def _judge_memory(ours: Cell, limit: int) -> Verdict:
    peak = ours.edge_memory
    text = (
        f"gateway and superlink held {_megabytes(peak.pss)} PSS, {_megabytes(peak.rss)} RSS "
        f"(under {_megabytes(limit)})"
    )
    return Verdict(max(peak.pss, peak.rss) < limit, text)


def _megabytes(size: int) -> str:
    return f"{size / _MB:.0f} MB"


def describe(cell: Cell) -> str:
    """Return a cell as text: median time (number of repeats) and server CPU."""
    if cell.failure:
        return "failed"
    if cell.unfinished:
        return f"not done after {cell.unfinished:.0f} s{_dead(cell)}"
    if cell.delays:
        median, worst = statistics.median(cell.delays), max(cell.delays)
        return f"{1000 * median:.0f} ms, worst {1000 * worst:.0f} ms (n={len(cell.delays)})"
    cpu = f"{cell.cpu:.2f}"
    if not cell.times:
        return f"{cpu}, {_megabytes(cell.total_memory.pss)}"
    lost = f", {len(cell.lost)} replies LOST" if cell.lost else ""
    held = f", {_megabytes(cell.edge_memory.rss)}" if cell.memory else ""
    return f"{cell.seconds:.2f} s (n={len(cell.times)}), CPU {cpu} s{held}{lost}{_dead(cell)}"


def _dead(cell: Cell) -> str:
    return f", {len(cell.dead):,} nodes DEAD" if cell.dead else ""


def table(results: Rows, targets: Sequence[type[Target]]) -> str:
    """Return the table of one wire, in Markdown."""
    names = [target.name for target in targets if any(target.name in row for _, row in results)]
    lines = [table_line(["", *names, "promise"]), table_line(["---"] * (len(names) + 2))]
    for scenario, row in results:
        cells = [describe(row[name]) if name in row else "" for name in names]
        judged = "; ".join(map(str, verdicts(scenario, row, results)))
        lines.append(table_line([scenario.title, *cells, judged]))
    return "\n".join(lines)


def table_line(fields: Sequence[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def details(what: str, cell: Cell) -> str:
    """Return the details of one cell: every repeat, CPU of all that shared the cores, memory."""
    if cell.failure:
        return f"{what}: FAILED: {cell.failure}"
    series = {
        "times": cell.times,
        "delays": cell.delays,
        "server CPU": cell.server_cpu,
        "simulated nodes' CPU": cell.nodes_cpu,
        "ServerApp's CPU": cell.app_cpu,
        "CPU of all else": cell.others_cpu,
    }
    parts = [f"{label} {_numbers(values)}" for label, values in series.items() if values]
    if len(cell.part_cpu) > 1:
        medians = ((part, statistics.median(values)) for part, values in cell.part_cpu.items())
        parts.append("server CPU by part " + ", ".join(f"{part} {n:.2f}" for part, n in medians))
    if cell.unfinished:
        parts.append(f"not done after {cell.unfinished:.0f} s: {cell.why}")
    if cell.notes:
        parts.append(cell.notes)
    if cell.turned_away:
        parts.append("turned away " + _most_often(cell.turned_away))
    if cell.dead:
        parts.append(f"{len(cell.dead)} nodes DEAD: " + _most_often(Counter(cell.dead)))
    if cell.lost:
        parts.append(f"{len(cell.lost)} replies LOST, first: {cell.lost[0]}")
    if cell.memory:
        parts.append("memory (PSS/RSS) " + _memory(cell))
    if cell.tally:
        parts.append(_tally(cell))
    parts.append(f"load before {cell.load:.1f}")
    return f"{what}: " + "; ".join(parts)


def _most_often(counts: Mapping[str, int]) -> str:
    """Return counts as text, the most frequent first, the rest as one."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    parts = [f"{count:,} × {what}" for what, count in ranked[:_SHOWN]]
    if rest := sum(count for _, count in ranked[_SHOWN:]):
        parts.append(f"{rest:,} × something else")
    return ", ".join(parts)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _memory(cell: Cell) -> str:
    return ", ".join(
        f"{part} {_megabytes(size.pss)}/{_megabytes(size.rss)}"
        for part, size in cell.memory.items()
    )


def _tally(cell: Cell) -> str:
    tally = cell.tally
    counted = (
        f"{sum(tally['calls'].values())} calls, {tally['empty_pulls']} empty pulls, "
        f"{tally['waits']} waits for objects, {tally['retries']} retries, "
        f"{tally['late_heartbeats']} late heartbeats, {tally['connections']} connections"
    )
    errors: list[str] = tally["errors"]
    return f"{counted}, {len(errors)} ERRORS, first {errors[0]}" if errors else counted


def machine() -> str:
    """Return the machine of the measurement, its load and its software."""
    memory = psutil.virtual_memory().total / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join(
        [
            f"Machine: {_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
            f"{platform.system()} {platform.release()}; load average before: {load}",
            f"Software: Python {platform.python_version()}, "
            f"grpcio {version('grpcio')}, flower-nats {version('flower-nats')}",
            "Simulated nodes, ServerApp and server share these cores; all traffic is loopback.",
        ]
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def durability(rows: Iterable[Row]) -> str:
    """Return each target's durability, as its servers report it."""
    said = {(name, cell.durability): None for row in rows for name, cell in row.items()}
    return "\n".join(f"Durability of {name}: {words or 'not known'}" for name, words in said)
