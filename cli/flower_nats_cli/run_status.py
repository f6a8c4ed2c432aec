"""The text of `flower-nats status --run`: how far a run has come, and what it waits for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flower_nats.broker.progress import Step
from flower_nats.model.visible import visible_lines, visible_name
from flower_nats_cli.table import table
from flower_nats_cli.times import age, ago

_SHOWN = 50
"""Nodes that are shown of one exchange; `--format json` has all."""

_LINES = 10
"""Lines that are shown of an error."""

_ORDER = list(Step)

_WAITS_FOR_NODE = {Step.PUT_OUT, Step.TAKEN, Step.ANSWERING}

_MEANING = {
    Step.ARRIVING: "the ServerApp still sends its message",
    Step.PUT_OUT: "the message is ready; the node has not fetched it",
    Step.TAKEN: "the node has the message and works on it",
    Step.ANSWERING: "the node sends its reply",
    Step.ANSWERED: "the reply is here; the ServerApp has not fetched it",
    Step.COLLECTED: "the ServerApp has the reply, or the message has expired",
}

Map = Mapping[str, Any]


def run_lines(report: Map) -> Iterator[str]:
    """Describe the answer of a superlink to `RunReport`."""
    run = report["run"]
    app = f"{visible_name(run['app'])}, federation {run['federation']}"
    yield f"Run {run['run_id']} ({app}) is {_state(report)}."
    if run["status"] == "pending":
        yield (
            "It waits for a SuperExec to start its ServerApp. If this takes long, check that a "
            "SuperExec runs;"
        )
        yield "its log says why the app is not started."
    elif run["status"] == "starting":
        yield "A SuperExec has taken the run, and starts the process of its ServerApp."
    elif run["status"] == "running":
        heard = _ago(report, report["task"]["heard_at"])
        yield f"The process of its ServerApp{_place(report)} was last heard {heard}."
        yield from _exchange_lines(report)
    yield from _error_lines(report)


def _error_lines(report: Map) -> Iterator[str]:
    """Show the errors with which nodes answered: the ServerApp's own error may come from them."""
    if report["errors"]:
        yield ""
        yield "Errors of nodes, the newest first:"
    for error in report["errors"]:
        named = ", ".join(visible_name(one["name"]) or one["node_id"] for one in error["named"])
        more = error["nodes"] - len(error["named"])
        nodes = f"{named} and {more} more" if more else named
        times = "once" if error["count"] == 1 else f"{error['count']} times"
        yield f"  {times}, of {nodes or 'no node'}, {_ago(report, error['last_at'])}:"
        reason = visible_lines(error["reason"]).splitlines()
        for line in reason[:_LINES]:
            yield f"    {line}"
        if len(reason) > _LINES:
            yield f"    … and {len(reason) - _LINES} more lines; --format json shows all"


def _state(report: Map) -> str:
    run = report["run"]
    if run["status"] == "finished":
        why = f" ({visible_lines(run['details'])})" if run["details"] else ""
        return f"finished:{run['sub_status']}, {_ago(report, run['finished_at'])}{why}"
    since = run[f"{run['status']}_at"]
    return f"{run['status']}, for {_age(report, since)}"


def _exchange_lines(report: Map) -> Iterator[str]:
    if not report["exchanges"]:
        yield "No message is under way: the ServerApp computes, or waits for SuperNodes to come online."
    for exchange in report["exchanges"]:
        yield ""
        yield from _one_exchange(report, exchange)


def _one_exchange(report: Map, exchange: Map) -> Iterator[str]:
    messages: Sequence[Map] = exchange["messages"]
    steps = Counter(Step(one["step"]) for one in messages)
    waiting = sum(steps[step] for step in _WAITS_FOR_NODE)
    group = f", group {exchange['group']}" if exchange["group"] else ""
    counts = ", ".join(f"{steps[step]} {step}" for step in _ORDER if steps[step])
    yield (
        f"{exchange['message_type']}{group}, sent {_ago(report, exchange['opened_at'])}: "
        f"waits for {waiting} of {len(messages)} nodes ({counts})"
    )
    shown = sorted(messages, key=lambda one: (_ORDER.index(Step(one["step"])), one["since"]))
    rows = [_row(report, one) for one in shown[:_SHOWN]]
    yield from table(["NODE", "NAME", "MESSAGE IS", "FOR", "NODE IS"], rows)
    if len(shown) > _SHOWN:
        yield f"  and {len(shown) - _SHOWN} more; --format json shows all"
    for step in _ORDER:
        if steps[step]:
            yield f"  {step}: {_MEANING[step]}"


def _row(report: Map, message: Map) -> list[str]:
    heard = message["node_heard_at"]
    node = message["node_status"] + (f", heard {_ago(report, heard)}" if heard else "")
    return [
        message["node_id"],
        visible_name(message["name"] or "-"),
        message["step"],
        _age(report, message["since"]) if message["since"] else "-",
        node,
    ]


def _place(report: Map) -> str:
    """Say where the run's SuperExec is: the run executes there."""
    where = report["task"].get("taken_from")
    return f", started by the SuperExec at {visible_name(where)}," if where else ""


def _ago(report: Map, moment: str) -> str:
    return ago(report["now"], moment)


def _age(report: Map, moment: str) -> str:
    return age(report["now"], moment)
