"""Errors of nodes and apps, grouped by text: numbers, ids and paths make no difference."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flower_nats.model.caller import Caller
from flower_nats.model.visible import visible_lines, visible_name
from flower_nats.store.connection import Database
from flower_nats.store.exchanges import ErrorSum, Exchanges
from flower_nats.store.nodes import Nodes
from flower_nats.store.runs import Runs
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.console.known import for_known
from flower_nats.superlink.convert import iso, now_iso

Map = Mapping[str, Any]

_DAYS = 30
"""Errors are shown for this many days."""

_MOST_TEXTS = 5_000
"""Different texts that are grouped, the newest of each source. People hardly read more."""

_MOST_GROUPS = 100
"""Groups in one answer."""

_NAMED = 20
"""Nodes and runs that are listed for a group."""

_COMPARED = 300
"""Texts are grouped by this many characters at the start."""

_SAME: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"\x1b\[[0-9;:]*m"), ""),
    (re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.@+~-]+){2,}[\\/]?"), "(path)"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "#"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}\b"), "#"),
    (re.compile(r"\d+(?:[.,:]\d+)*"), "#"),
    (re.compile(r"\s+"), " "),
)


def what_it_says(text: str) -> str:
    """Return an error's text without the parts that differ between occurrences."""
    for pattern, same in _SAME:
        text = pattern.sub(same, text)
    return text.strip()[:_COMPARED]


@dataclass
class _Group:
    example: str
    outcome: str
    first_at: datetime
    last_at: datetime
    count: int = 0
    nodes: dict[int, None] = field(default_factory=dict)
    runs: dict[int, None] = field(default_factory=dict)

    def add(self, one: ErrorSum) -> None:
        if one.last_at >= self.last_at:
            self.example, self.last_at = one.reason, one.last_at
        self.first_at = min(self.first_at, one.first_at)
        self.count += one.count
        self.nodes |= dict.fromkeys(one.node_ids)
        self.runs |= dict.fromkeys(one.run_ids)


def grouped(errors: Iterable[ErrorSum]) -> list[tuple[str, _Group]]:
    """Return the groups of errors with the same text, the newest first."""
    groups: dict[tuple[str, str], _Group] = {}
    for one in errors:
        key = (what_it_says(one.reason), one.outcome)
        if key not in groups:
            groups[key] = _Group(one.reason, one.outcome, one.first_at, one.last_at)
        groups[key].add(one)
    newest = sorted(groups.items(), key=lambda item: item[1].last_at, reverse=True)
    return [(says, group) for (says, _), group in newest]


class ErrorQuestions:
    """Serves the page of errors."""

    def __init__(self, database: Database, identity: Identity) -> None:
        self._identity = identity
        self._exchanges = Exchanges(database)
        self._nodes = Nodes(database)
        self._runs = Runs(database)

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return for_known(self._identity, {"Errors": self.errors})

    async def errors(self, question: Map, caller: Caller) -> Map:
        """{federation} -> {now, days, groups, more, federations}: the newest first.

        `outcome` of a group is `failed` (an error from a node), `unanswered` (an error of the
        runtime in place of a node's reply) or `run` (the reason of a failed run).
        """
        federation, seen_by = question["federation"] or None, caller.sees
        found = await self._exchanges.errors(_DAYS, federation, seen_by, _MOST_TEXTS)
        # Grouping thousands of texts takes a tenth of a second. In a thread, other calls are served
        # too.
        groups = await asyncio.to_thread(grouped, found)
        shown = groups[:_MOST_GROUPS]
        nodes = {node_id for _, one in shown for node_id in list(one.nodes)[:_NAMED]}
        signs = await self._nodes.last_heard(sorted(nodes)) if nodes else []
        names = {sign.node_id: visible_name(sign.name or "") for sign in signs}
        return {
            "now": now_iso(),
            "days": _DAYS,
            "groups": [_group(says, one, names) for says, one in shown],
            "more": len(groups) > len(shown),
            "federations": await self._runs.federations(seen_by),
        }


def _group(says: str, one: _Group, names: Mapping[int, str]) -> Map:
    return {
        "says": visible_lines(says),
        "example": visible_lines(one.example),
        "outcome": one.outcome,
        "count": one.count,
        "first_at": iso(one.first_at),
        "last_at": iso(one.last_at),
        "nodes": [
            {"node_id": str(node_id), "name": names.get(node_id, "")}
            for node_id in list(one.nodes)[:_NAMED]
        ],
        "nodes_in_all": len(one.nodes),
        "runs": [str(run_id) for run_id in list(one.runs)[:_NAMED]],
        "runs_in_all": len(one.runs),
    }
