"""What a run waits for, from the broker and the database, for `flower-nats status --run`."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from flower_nats.broker.progress import Delivery, Exchange, Progress
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.run import Run
from flower_nats.store.connection import Database
from flower_nats.store.exchanges import Exchanges, Failure
from flower_nats.store.nodes import Nodes, NodeSign
from flower_nats.store.runs import Runs
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.convert import iso

_ERRORS = 5
"""Different errors of nodes in a report: the newest."""

_NAMED = 5
"""Nodes that are named for an error."""


class RunReport:
    """Reads the progress of a run, anew for each question."""

    def __init__(self, database: Database, progress: Progress) -> None:
        self._runs = Runs(database)
        self._tasks = Tasks(database)
        self._nodes = Nodes(database)
        self._exchanges = Exchanges(database)
        self._progress = progress

    async def report(self, run_id: int) -> dict[str, Any]:
        """Return {now, run, task, exchanges, errors}; all times are ISO 8601, empty where there is none.

        Raises `ApiError` (RUN_ID_NOT_FOUND), and `Unavailable` if broker or database is away.
        """
        run = await self._runs.get(run_id)
        if run is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"there is no run {run_id}")
        sign = await self._tasks.sign(run.primary_task_id)
        exchanges = await self._progress.of_run(run_id)
        failures = await self._exchanges.failures(run_id, _ERRORS)
        node_ids = {one.node_id for exchange in exchanges for one in exchange.deliveries}
        node_ids.update(node_id for one in failures for node_id in one.node_ids[:_NAMED])
        signs = await self._nodes.last_heard(sorted(node_ids)) if node_ids else []
        return {
            "now": iso(datetime.now(UTC)),
            "run": _run(run),
            "task": {
                "type": run.primary_task_type,
                "heard_at": iso(sign.heard_at),
                "taken_from": sign.taken_from,
            },
            "exchanges": [_exchange(exchange, signs) for exchange in exchanges],
            "errors": [_error(one, signs) for one in failures],
        }


def _run(run: Run) -> Mapping[str, str]:
    return {
        "run_id": str(run.run_id),
        "app": f"{run.fab_id} {run.fab_version}",
        "federation": run.federation,
        "status": str(run.status),
        "sub_status": run.sub_status,
        "details": run.details,
        "pending_at": iso(run.pending_at),
        "starting_at": iso(run.starting_at),
        "running_at": iso(run.running_at),
        "finished_at": iso(run.finished_at),
    }


def _exchange(exchange: Exchange, signs: Iterable[NodeSign]) -> Mapping[str, Any]:
    by_id = {sign.node_id: sign for sign in signs}
    return {
        "message_type": exchange.message_type,
        "group": exchange.group,
        "opened_at": exchange.opened_at,
        "messages": [_message(one, by_id.get(one.node_id)) for one in exchange.deliveries],
    }


def _error(failure: Failure, signs: Iterable[NodeSign]) -> Mapping[str, Any]:
    names = {sign.node_id: sign.name or "" for sign in signs}
    return {
        "reason": failure.reason,
        "count": failure.count,
        "last_at": iso(failure.last_at),
        "nodes": len(failure.node_ids),
        "named": [
            {"node_id": str(node_id), "name": names.get(node_id, "")}
            for node_id in failure.node_ids[:_NAMED]
        ],
    }


def _message(delivery: Delivery, sign: NodeSign | None) -> Mapping[str, str]:
    return {
        "message_id": delivery.message_id,
        "node_id": str(delivery.node_id),
        "name": (sign.name or "") if sign else "",
        "location": (sign.location or "") if sign else "",
        "step": str(delivery.step),
        "since": delivery.since,
        "node_status": sign.status if sign else "unknown",
        "node_heard_at": iso(sign.heard_at) if sign else "",
    }
