"""`flower-nats quota`: how many runs a federation or an account may have at once, and for how long."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from flower_nats.model.quota import EACH, KINDS, BadQuota, check_limits
from flower_nats_cli import options as opts
from flower_nats_cli.operator_commands import ask, runtime_options, show
from flower_nats_cli.times import duration

_NONE = "none"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_RUNS = re.compile(r"[0-9]{1,18}")

_TIME = re.compile(r"([0-9]{1,18})([smhd])")


class _Runs(click.ParamType[tuple[int | None]]):
    name = "runs"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | None]:
        if value == _NONE:
            return (None,)
        if _RUNS.fullmatch(value) is None:
            self.fail(f"{value!r} is not a number of runs and not '{_NONE}'.", param, ctx)
        runs = int(value)
        try:
            check_limits(runs_at_once=runs)
        except BadQuota as exc:
            self.fail(str(exc), param, ctx)
        return (runs,)


class _Time(click.ParamType[tuple[float | None]]):
    name = "time"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float | None]:
        if value == _NONE:
            return (None,)
        found = _TIME.fullmatch(value)
        if found is None:
            self.fail(
                f"{value!r} is not a time such as 90s, 30m, 2h or 7d, and not '{_NONE}'.",
                param,
                ctx,
            )
        seconds = float(int(found[1]) * _UNITS[found[2]])
        try:
            check_limits(run_seconds=seconds)
        except BadQuota as exc:
            self.fail(str(exc), param, ctx)
        return (seconds,)


@click.group()
def quota() -> None:
    """Limit the runs of federations and accounts."""


@quota.command("set")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--runs", type=_Runs(), metavar="N|none", help="Runs at once; others wait as pending."
)
@click.option(
    "--run-time",
    type=_Time(),
    metavar="TIME|none",
    help="Longest time of a run, such as 90s, 30m, 2h or 7d, at most 3650d. A run that takes longer "
    "ends as failed.",
)
@runtime_options
@click.pass_context
def set_quota(context: click.Context, /, kind: str, name: str, **options: Any) -> None:
    """Limit the federation or account NAME. '*' means all that have no limits of their own."""
    change = {
        field: options[option][0]
        for field, option in (("runs_at_once", "runs"), ("run_seconds", "run_time"))
        if options[option] is not None
    }
    if not change:
        raise click.UsageError("Give --runs, --run-time, or both.")
    ask(context, options, "SetQuota", kind=kind, name=name, change=change)
    click.echo(f"The limits of {_subject({'kind': kind, 'name': name})} are set.")


@quota.command("list")
@opts.format_option
@runtime_options
@click.pass_context
def list_quotas(context: click.Context, /, **options: Any) -> None:
    """Show the limits, and how many runs count against them now."""
    answer = ask(context, options, "Quotas")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in (*answer["quotas"], *answer["use"]):
        empty = {"runs_at_once": None, "run_seconds": None, "begun": 0, "pending": 0}
        rows.setdefault((one["kind"], one["name"]), empty).update(one)
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "OF": _subject,
        "RUNS AT ONCE": lambda one: _limit(one["runs_at_once"], str),
        "RUN TIME": lambda one: _limit(one["run_seconds"], duration),
        "BEGUN": lambda one: str(one["begun"]),
        "PENDING": lambda one: str(one["pending"]),
    }
    show(list(rows.values()), columns, as_json=options["format"] == "json")


def _subject(one: Mapping[str, Any]) -> str:
    kind, name = one["kind"], one["name"]
    return f"each {kind}" if name == EACH else f"{kind} {name}"


def _limit(value: Any, text: Callable[[Any], str]) -> str:
    return "-" if value is None else text(value)
