"""The history of exchanges in the database."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from flower_nats.model.exchange import ExchangeNote
from flower_nats.store.connection import Session, storable
from flower_nats.store.queries import load

_SQL = load("exchanges")

_COLUMNS = tuple(ExchangeNote.__dataclass_fields__)


@dataclass(frozen=True)
class Send:
    """The messages of one call of a ServerApp, in sum."""

    session_id: int
    message_type: str
    group_id: str
    began_at: datetime | None
    """When the first of its instructions was released; None if that was not noted."""
    first_answered_at: datetime | None
    """When the first reply came; None if none has."""
    ended_at: datetime | None
    """When the last reply came; None if none has."""
    sent: int
    """Number of instructions."""
    answered: int
    failed: int
    """Exchanges that ended with an error, from the node or in place of its reply."""
    bytes_sent: int
    bytes_recv: int


@dataclass(frozen=True)
class NodeHistory:
    """The exchanges of one node in a run. Lists have one entry for each, in order of sending."""

    node_id: int
    sessions: list[int]
    outcomes: list[str]
    """An `Outcome`; empty while there is none."""
    waits: list[int]
    """Milliseconds from release to confirmation; -1 if unknown."""
    works: list[int]
    """Milliseconds from release to reply, or to now; -1 if unknown."""


@dataclass(frozen=True)
class Failure:
    """Exchanges that ended with the same error."""

    reason: str
    outcome: str
    count: int
    first_at: datetime | None
    last_at: datetime | None
    node_ids: list[int]


@dataclass(frozen=True)
class ErrorSum:
    """An error of exchanges and runs."""

    reason: str
    outcome: str
    """The outcome of its exchanges, or `run`."""
    count: int
    first_at: datetime
    last_at: datetime
    node_ids: list[int]
    run_ids: list[int]


@dataclass(frozen=True)
class NodeRecord:
    """A summary of a node's recent exchanges."""

    node_id: int
    runs: int
    exchanges: int
    failed: int
    median_seconds: float | None
    """From release to reply."""
    bytes_sent: int
    bytes_recv: int


@dataclass(frozen=True)
class RunOfNode:
    """How a node has done in one run."""

    run_id: int
    fab_id: str
    federation: str
    created_at: datetime
    exchanges: int
    failed: int
    median_seconds: float | None
    """From release to reply."""
    bytes_sent: int
    bytes_recv: int


@dataclass(frozen=True)
class Reading:
    """One number of one reply."""

    session_id: int
    node_id: int
    value: float | None
    """None if it is not finite."""


@dataclass(frozen=True)
class Spread:
    """One number in a round's replies, in sum. None for sums that are too large for a double."""

    at: int
    """Which round."""
    count: int
    """Replies that have the number."""
    without_examples: int
    """Replies that give no number of examples."""
    plain_mean: float | None
    weighted_mean: float | None
    """Weighted by examples; None also if there are no examples."""
    least: float | None
    low: float | None
    """The tenth percentile."""
    middle: float | None
    high: float | None
    """The ninetieth percentile."""
    most: float | None


@dataclass(frozen=True)
class Number:
    """One number in replies, and the rounds of the question."""

    run_id: int
    message_type: str
    name: str
    columns: Mapping[int, int]
    """The sends to count, by session, with the round of each."""

    def asked(self) -> dict[str, Any]:
        """Return the question as parameters of statements."""
        return {
            "run_id": self.run_id,
            "message_type": storable(self.message_type),
            "name": storable(self.name),
            "sessions": list(self.columns),
        }


@dataclass(frozen=True)
class Metrics:
    """All numbers of one reply."""

    exchange_id: int
    session_id: int
    message_type: str
    node_id: int | None
    answered_at: datetime | None
    metrics: dict[str, float | None]


class Exchanges:
    """The history of messages: who sent, took and answered each, and when."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, notes: Sequence[ExchangeNote]) -> None:
        """Add new facts; unknown runs are skipped. Each exchange may occur once."""
        columns = zip(*map(astuple, notes), strict=True)
        values = dict(zip(_COLUMNS, map(list, columns), strict=True))
        for name in ("message_type", "group_id", "reason"):
            values[name] = [storable(text) for text in values[name]]
        values["metrics"] = [
            None
            if one is None
            else json.dumps({storable(name): each for name, each in one.items()})
            for one in values["metrics"]
        ]
        await self._session.execute(_SQL["add"], **values)

    async def sends(self, run_id: int) -> list[Send]:
        """Return the sends of a run's ServerApp, oldest first."""
        rows = await self._session.fetch_all(_SQL["sends"], run_id=run_id)
        return [Send(**row) for row in rows]

    async def by_node(self, run_id: int, sessions: Sequence[int]) -> list[NodeHistory]:
        """Return the exchanges of these sends of a run, by node."""
        rows = await self._session.fetch_all(
            _SQL["by_node"], run_id=run_id, sessions=list(sessions)
        )
        return [NodeHistory(**row) for row in rows]

    async def failures(self, run_id: int, limit: int) -> list[Failure]:
        """Return the errors of a run's exchanges, the newest first."""
        rows = await self._session.fetch_all(_SQL["failures"], run_id=run_id, limit=limit)
        return [Failure(**{**row, "node_ids": row["node_ids"] or []}) for row in rows]

    async def metric_names(
        self, run_id: int, sessions: Sequence[int], limit: int
    ) -> list[tuple[str, str]]:
        """Return the type of message and the name of each number in the replies to these sends."""
        rows = await self._session.fetch_all(
            _SQL["metric_names"], run_id=run_id, sessions=list(sessions), limit=limit
        )
        return [(row["message_type"], row["name"]) for row in rows]

    async def metric_by_round(self, number: Number, examples: str) -> list[Spread]:
        """Return a number summed over each round, weighted by the number named `examples`."""
        rows = await self._session.fetch_all(
            _SQL["metric_by_round"],
            **number.asked(),
            rounds=list(number.columns.values()),
            examples=examples,
        )
        return [Spread(**{name: _finite(value) for name, value in row.items()}) for row in rows]

    async def metric_farthest(
        self, number: Number, means: Sequence[float | None], limit: int
    ) -> tuple[list[int], int]:
        """Return nodes, the last value farthest from the mean first, and the number of all.

        `means` are those of the rounds.
        """
        rows = await self._session.fetch_all(
            _SQL["metric_farthest"],
            **number.asked(),
            rounds=list(number.columns.values()),
            means=[means[at] for at in number.columns.values()],
            limit=limit,
        )
        return [row["node_id"] for row in rows], rows[0]["nodes_in_all"] if rows else 0

    async def metric_of_nodes(self, number: Number, node_ids: Sequence[int]) -> list[Reading]:
        """Return a number from each reply of some nodes, oldest first."""
        rows = await self._session.fetch_all(
            _SQL["metric_of_nodes"], **number.asked(), node_ids=list(node_ids)
        )
        return [Reading(**row) for row in rows]

    async def metrics_after(self, run_id: int, after: int | None, limit: int) -> list[Metrics]:
        """Return all numbers of the first `limit` replies, or of those after an exchange."""
        rows = await self._session.fetch_all(
            _SQL["metrics_after"], run_id=run_id, after=after, limit=limit
        )
        return [Metrics(**row) for row in rows]

    async def runs_of_node(
        self, node_id: int, days: int, limit: int, account_id: str | None
    ) -> list[RunOfNode]:
        """Return a node's results in the runs of the last days, of an account or of all."""
        rows = await self._session.fetch_all(
            _SQL["runs_of_node"], node_id=node_id, days=days, limit=limit, account_id=account_id
        )
        return [RunOfNode(**row) for row in rows]

    async def failures_of_node(
        self, node_id: int, days: int, limit: int, account_id: str | None
    ) -> list[Failure]:
        """Return the errors of a node in those runs, the newest first."""
        rows = await self._session.fetch_all(
            _SQL["failures_of_node"], node_id=node_id, days=days, limit=limit, account_id=account_id
        )
        return [Failure(**row, node_ids=[node_id]) for row in rows]

    async def errors(
        self, days: int, federation: str | None, seen_by: str | None, limit: int
    ) -> list[ErrorSum]:
        """Return the errors of the last days, of a federation or of those that an account may see.

        There are at most `limit` different errors of exchanges, and as many of runs, the newest of
        each.
        """
        of = {"days": days, "federation": federation, "seen_by": seen_by, "limit": limit}
        exchanges = await self._session.fetch_all(_SQL["errors"], **of)
        runs = await self._session.fetch_all(_SQL["errors_of_runs"], **of)
        return [ErrorSum(**{**row, "node_ids": row["node_ids"] or []}) for row in exchanges + runs]

    async def of_nodes(self, node_ids: Sequence[int], days: int) -> list[NodeRecord]:
        """Return the results of nodes in the runs of the last days."""
        rows = await self._session.fetch_all(_SQL["of_nodes"], node_ids=list(node_ids), days=days)
        return [NodeRecord(**row) for row in rows]


def _finite(value: Any) -> Any:
    """Return a number from the database as a double; None if it is too large."""
    if not isinstance(value, Decimal):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
