"""The console's questions: maps of plain values (msgpack), with ids as texts and times in ISO
8601."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from flower_nats.broker.runlog import RunLogs
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.config import Config
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.model.fab import InvalidFab, read_config
from flower_nats.model.node import Node
from flower_nats.model.run import Run
from flower_nats.model.states import Status
from flower_nats.model.visible import visible_lines, visible_name
from flower_nats.store.connection import Database
from flower_nats.store.exchanges import Exchanges, Failure, NodeHistory, NodeRecord, RunOfNode
from flower_nats.store.fabs import Fabs
from flower_nats.store.nodes import Nodes, NodeSign
from flower_nats.store.runs import Runs, RunSearch
from flower_nats.superlink.accounts.guard import Guard
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.console.known import check_operator, for_known
from flower_nats.superlink.console.logged_metrics import AN_EXPORT, LoggedMetrics
from flower_nats.superlink.console.metrics import EXAMPLES, number_over_rounds, round_names
from flower_nats.superlink.console.rounds import (
    NodeRow,
    Round,
    expected_end,
    median_ms,
    newest,
    rounds_of,
    rows_of,
    slowest,
)
from flower_nats.superlink.convert import config_from_wire, iso, now_iso
from flower_nats.superlink.operators.status_report import StatusReport
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

Map = Mapping[str, Any]

_MOST_RUNS = 200
"""Runs in one answer."""

_LOG_BYTES = 256 * 1024
"""Bytes of a log in one answer, so that it fits into one message."""

_MOST_NODES = 2_000
"""Nodes in one answer."""

_FAILURES = 20
"""Different errors that are shown of a run."""

_NAMED = 10
"""Nodes that are listed for an error."""

_RECORD_DAYS = 30
"""The record of a node covers this many days."""

_METRIC_NAMES = 200
"""Names of numbers that are shown of a run."""

_METRIC_ROWS = 2_000
"""Replies with numbers in one answer."""

_PRESENCE = 50
"""Times that a node came or went, in one answer."""

_RUNS_OF_NODE = 50

_KEPT_CONFIGS = 64
"""Apps with a remembered configuration: reading it from a FAB takes milliseconds."""

_ROUNDS_KEYS = ("num-server-rounds", "num_server_rounds", "num-rounds", "num_rounds", "rounds")
"""Apps' names for the number of rounds; the first one is from flwr's examples."""

_STATES: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "active": {"unfinished": True},
    "pending": {"status": "pending"},
    "running": {"status": "running"},
    "completed": {"sub_status": "completed"},
    "failed": {"sub_status": "failed"},
    "stopped": {"sub_status": "stopped"},
}
"""The states by which runs can be searched."""


class ConsoleQuestions:
    """Serves the console."""

    def __init__(
        self,
        database: Database,
        logs: RunLogs,
        identity: Identity,
        guard: Guard,
        status: StatusReport,
    ) -> None:
        self._guard = guard
        self._logs = logs
        self._identity = identity
        self._status = status
        self._runs = Runs(database)
        self._nodes = Nodes(database)
        self._fabs = Fabs(database)
        self._exchanges = Exchanges(database)
        self._logged = LoggedMetrics(logs)
        self._configs: dict[str, Config] = {}

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        handlers: dict[str, InternalHandler] = {
            "Status": self.status,
            "Runs": self.runs,
            "Run": self.run,
            "Timeline": self.timeline,
            "Log": self.log,
            "Metrics": self.metrics,
            "MetricRows": self.metric_rows,
            "Nodes": self.nodes,
            "Node": self.node,
        }
        return for_known(self._identity, handlers)

    async def status(self, question: Map, caller: Caller) -> Map:
        """{} -> the result of `StatusReport.report`, for operators: it covers the whole runtime."""
        check_operator(caller)
        return await self._status.report()

    async def runs(self, question: Map, caller: Caller) -> Map:
        """{state, federation, text, limit, skip} -> {now, runs, more, federations}: newest first.

        A `text` that is the id of a run finds that run.
        """
        limit = min(int(question["limit"]), _MOST_RUNS)
        text = str(question["text"]).strip()
        found = await self._by_id(text, caller)
        if found is None:
            search = RunSearch(
                federation=question["federation"] or None,
                text=text or None,
                seen_by=caller.sees,
                **_STATES[question["state"]],
            )
            found = await self._runs.search(search, limit + 1, int(question["skip"]))
        shown = found[:limit]
        return {
            "now": now_iso(),
            "runs": [await self._listed(run) for run in shown],
            "more": len(found) > limit,
            "federations": await self._runs.federations(caller.sees),
        }

    async def _by_id(self, text: str, caller: Caller) -> list[Run] | None:
        if not (text.isascii() and text.isdecimal() and len(text) > 9 and int(text) < 2**64):
            return None
        try:
            return [await self._run(int(text), caller)]
        except ApiError as exc:
            if exc.code is not ErrorCode.RUN_ID_NOT_FOUND:
                raise
            return []

    async def _listed(self, run: Run) -> Map:
        listed = _run(run)
        if run.status is Status.RUNNING:
            listed["round"] = _newest_round(rounds_of(await self._exchanges.sends(run.run_id)))
        return listed

    async def run(self, question: Map, caller: Caller) -> Map:
        """{run_id} -> {now, run, config, failures}. Raises `ApiError` (RUN_ID_NOT_FOUND)."""
        run = await self._run(question["run_id"], caller)
        failures = await self._exchanges.failures(run.run_id, _FAILURES)
        named = [node_id for one in failures for node_id in one.node_ids[:_NAMED]]
        names = await self._signs(named)
        return {
            "now": now_iso(),
            "run": _run(run),
            "config": {name: str(value) for name, value in (await self._config(run)).items()},
            "failures": [_failure(one, names) for one in failures],
        }

    async def timeline(self, question: Map, caller: Caller) -> Map:
        """{run_id, message_type, columns, rows, skip} -> its rounds × nodes.

        It has the newest `columns` rounds and, after the first `skip`, `rows` nodes, first those
        that need attention.
        """
        run = await self._run(question["run_id"], caller)
        by_type = rounds_of(await self._exchanges.sends(run.run_id))
        types = list(by_type)
        wanted = question["message_type"] or next(
            (one for one in types if one.startswith("train")), types[0] if types else ""
        )
        every = by_type.get(wanted, [])
        rounds = newest(every, int(question["columns"]))
        # Only the rounds that are shown: a run may have had thousands.
        sessions = [session for one in rounds for session in one.sessions]
        histories = await self._exchanges.by_node(run.run_id, sessions) if sessions else []
        is_over = run.status is Status.FINISHED
        # 1,000 nodes and 100 rounds take a fifth of a second. In a thread, other calls are served
        # too.
        rows, medians, lasts = await asyncio.to_thread(
            _rows_and_rounds, rounds, histories, is_over=is_over
        )
        skip = max(0, int(question["skip"]))
        shown = rows[skip : skip + int(question["rows"])]
        signs = await self._signs([row.node_id for row in [*shown, *filter(None, lasts)]])
        total = _total_rounds(await self._config(run))
        end = None if is_over else expected_end(every, total, datetime.now(UTC))
        return {
            "now": now_iso(),
            "is_over": is_over,
            "types": types,
            "type": wanted,
            "first_round": len(every) - len(rounds),
            "rounds": [
                _round(one, medians[at], lasts[at], at, signs) for at, one in enumerate(rounds)
            ],
            "rounds_in_all": len(every),
            "rounds_expected": total,
            "expected_end": iso(end),
            "nodes": [_row(row, signs) for row in shown],
            "nodes_in_all": len(rows),
        }

    async def metrics(self, question: Map, caller: Caller) -> Map:
        """{run_id, message_type, name, columns, rows} -> one number over rounds.

        The number is in replies, or in the ServerApp's log (`is_logged`), and summed over each of
        the newest `columns` rounds. Single values are given for at most `rows` nodes, those with
        the last value farthest from the mean.
        """
        run = await self._run(question["run_id"], caller)
        by_type = rounds_of(await self._exchanges.sends(run.run_id))
        columns = int(question["columns"])
        shown = {kind: newest(every, columns) for kind, every in by_type.items()}
        in_replies = await self._exchanges.metric_names(
            run.run_id, list(round_names(shown)), _METRIC_NAMES
        )
        logged = await self._logged.of(run.run_id)
        names = [*in_replies, *list(logged.numbers)[:_METRIC_NAMES]]
        wanted = question["message_type"], question["name"]
        if wanted not in names:
            wanted = next((one for one in names if one[1] != EXAMPLES), ("", ""))
        is_logged = wanted in logged.numbers
        if is_logged:
            number = logged.over_rounds(wanted, columns)
        else:
            rounds = shown.get(wanted[0], [])
            number = {
                "rounds": [visible_name(one.name) for one in rounds],
                "rounds_in_all": len(by_type.get(wanted[0], [])),
                **await number_over_rounds(
                    self._exchanges, run.run_id, wanted, rounds, int(question["rows"])
                ),
            }
        by_node = number.pop("by_node")
        signs = await self._signs(list(by_node))
        return {
            "now": now_iso(),
            "run": _run(run),
            "names": [{"type": one, "name": visible_name(name)} for one, name in names],
            "type": wanted[0],
            "name": visible_name(wanted[1]),
            "is_logged": is_logged,
            "log_is_read": logged.is_whole,
            **number,
            "nodes": [{**_named(one, signs), "values": by_node[one]} for one in by_node],
        }

    async def metric_rows(self, question: Map, caller: Caller) -> Map:
        """{run_id, after} -> {rows, next}: all numbers of a run, some replies at a time.

        `after` is the `next` of the part before, None at first; `next` is None if no more follow. The
        last part has the numbers in the log, without a node.
        """
        run = await self._run(question["run_id"], caller)
        found = await self._exchanges.metrics_after(run.run_id, question["after"], _METRIC_ROWS)
        names = round_names(rounds_of(await self._exchanges.sends(run.run_id)))
        signs = await self._signs([one.node_id for one in found if one.node_id is not None])
        rows = [
            {
                "round": visible_name(names.get(one.session_id, "")),
                "type": visible_name(one.message_type),
                **_named(one.node_id or 0, signs),
                "answered_at": iso(one.answered_at),
                "metrics": {visible_name(name): value for name, value in one.metrics.items()},
            }
            for one in found
        ]
        goes_on = found[-1].exchange_id if len(found) == _METRIC_ROWS else None
        if goes_on is None:
            logged = await self._logged.of(run.run_id, AN_EXPORT)
            if not logged.is_whole:
                raise Unavailable(f"the log of run {run.run_id} is still being read: ask again")
            rows += [
                {
                    "round": str(at),
                    "type": kind,
                    "node_id": "",
                    "name": "",
                    "node_status": "",
                    "answered_at": "",
                    "metrics": {visible_name(name): value for name, value in metrics.items()},
                }
                for kind, at, metrics in logged.rows()
            ]
        return {"rows": rows, "next": goes_on}

    async def log(self, question: Map, caller: Caller) -> Map:
        """{run_id, after, at_most} -> {text, position}: a piece of a run's log after a position.

        The piece has about `at_most` bytes; if it is empty, the position stays the same.
        """
        run = await self._run(question["run_id"], caller)
        after = int(question["after"])
        at_most = min(int(question["at_most"]), _LOG_BYTES)
        text, position = await self._logs.read(run.run_id, after, at_most)
        # The console removes colours. This also removes what could move a cursor.
        return {"text": visible_lines(text), "position": position if text else after}

    async def nodes(self, question: Map, caller: Caller) -> Map:
        """{} -> {now, days, nodes}: online nodes first; `days` is the period of their records."""
        found = await self._nodes.newest(_MOST_NODES, caller.sees)
        ids = [node.node_id for node, _ in found]
        records = await self._exchanges.of_nodes(ids, _RECORD_DAYS) if ids else []
        by_id = {record.node_id: record for record in records}
        return {
            "now": now_iso(),
            "days": _RECORD_DAYS,
            "nodes": [
                {**_node(node, sign), **_record(by_id.get(node.node_id))} for node, sign in found
            ],
        }

    async def node(self, question: Map, caller: Caller) -> Map:
        """{node_id} -> {now, days, node, presence, runs, failures}. Raises `ApiError` (INVALID_NODE_ID).

        `presence` says when it came and went, the newest first; `runs` and `failures` are of runs that
        the caller sees.
        """
        node_id = int(question["node_id"])
        found = await self._nodes.newest(1, caller.sees, node_id)
        if not found:
            raise ApiError(ErrorCode.INVALID_NODE_ID, f"there is no node {node_id}")
        records = await self._exchanges.of_nodes([node_id], _RECORD_DAYS)
        presence = await self._nodes.presence(node_id, _PRESENCE)
        runs = await self._exchanges.runs_of_node(node_id, _RECORD_DAYS, _RUNS_OF_NODE, caller.sees)
        failures = await self._exchanges.failures_of_node(
            node_id, _RECORD_DAYS, _FAILURES, caller.sees
        )
        return {
            "now": now_iso(),
            "days": _RECORD_DAYS,
            "node": {**_node(*found[0]), **_record(records[0] if records else None)},
            "presence": [{"at": iso(at), "status": status} for at, status in presence],
            "runs": [_run_of_node(one) for one in runs],
            "failures": [_failure(one, {}) for one in failures],
        }

    async def _run(self, run_id: int, caller: Caller) -> Run:
        await self._guard.check("ListRuns", control.ListRunsRequest(run_id=run_id), caller)
        run = await self._runs.get(run_id)
        if run is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"there is no run {run_id}")
        return run

    async def _signs(self, node_ids: Sequence[int]) -> Mapping[int, NodeSign]:
        if not node_ids:
            return {}
        found = await self._nodes.last_heard(sorted(set(node_ids)))
        return {sign.node_id: sign for sign in found}

    async def _config(self, run: Run) -> Config:
        """Return the configuration of a run: the app's, with the run's overrides."""
        if run.fab_hash not in self._configs:
            fab = await self._fabs.get(run.fab_hash)
            try:
                found = {} if fab is None else await asyncio.to_thread(read_config, fab.content)
            except InvalidFab as exc:
                # Another version accepted the FAB.
                log.warning("fab_not_read", fab_hash=run.fab_hash, reason=str(exc))
                found = {}
            while len(self._configs) >= _KEPT_CONFIGS:
                self._configs.pop(next(iter(self._configs)), None)
            self._configs[run.fab_hash] = found
        overrides = common.Run.FromString(run.override_config).override_config
        return {**self._configs[run.fab_hash], **config_from_wire(overrides)}


def _rows_and_rounds(
    rounds: Sequence[Round], histories: Sequence[NodeHistory], *, is_over: bool
) -> tuple[list[NodeRow], list[float | None], list[NodeRow | None]]:
    """Return the results of each node, and each round's median and slowest node."""
    rows = rows_of(rounds, histories, is_over=is_over)
    columns = range(len(rounds))
    return rows, [median_ms(rows, at) for at in columns], [slowest(rows, at) for at in columns]


def _run(run: Run) -> dict[str, Any]:
    return {
        "run_id": str(run.run_id),
        "app": visible_name(run.fab_id),
        "app_version": visible_name(run.fab_version),
        "fab_hash": run.fab_hash,
        "federation": run.federation,
        "account": visible_name(run.account_name),
        "type": run.primary_task_type,
        "status": str(run.status),
        "sub_status": run.sub_status,
        "details": visible_lines(run.details),
        "pending_at": iso(run.pending_at),
        "starting_at": iso(run.starting_at),
        "running_at": iso(run.running_at),
        "finished_at": iso(run.finished_at),
        "bytes_sent": run.bytes_sent,
        "bytes_recv": run.bytes_recv,
        "clientapp_seconds": run.clientapp_runtime,
        "round": None,
    }


def _newest_round(by_type: Mapping[str, Sequence[Round]]) -> Map | None:
    """Return the progress of a run's newest round."""
    newest = max(
        (rounds[-1] for rounds in by_type.values()),
        key=lambda one: iso(one.began_at),
        default=None,
    )
    if newest is None:
        return None
    return {
        "name": newest.name,
        "type": newest.message_type,
        "sent": newest.sent,
        "answered": newest.answered,
        "failed": newest.failed,
    }


def _round(
    one: Round, middle: float | None, last: NodeRow | None, at: int, signs: Mapping[int, NodeSign]
) -> Map:
    return {
        "name": visible_name(one.name),
        "began_at": iso(one.began_at),
        "ended_at": iso(one.ended_at) if one.is_over else "",
        "sent": one.sent,
        "answered": one.answered,
        "failed": one.failed,
        "bytes_sent": one.bytes_sent,
        "bytes_recv": one.bytes_recv,
        "median_ms": middle,
        "slowest": None
        if last is None
        else {**_named(last.node_id, signs), "ms": last.ms[at], "state": last.states[at]},
    }


def _row(row: NodeRow, signs: Mapping[int, NodeSign]) -> Map:
    return {
        **_named(row.node_id, signs),
        "states": "".join(row.states),
        "ms": row.ms,
        "taken_ms": row.taken_ms,
        "failed": row.failed,
        "last_of": row.last_of,
        "median_ms": row.median_ms,
        "waiting_ms": row.waiting_ms,
    }


def _named(node_id: int, signs: Mapping[int, NodeSign]) -> dict[str, Any]:
    sign = signs.get(node_id)
    return {
        "node_id": str(node_id),
        "name": visible_name(sign.name or "") if sign else "",
        "node_status": sign.status if sign else "gone",
    }


def _failure(one: Failure, signs: Mapping[int, NodeSign]) -> Map:
    return {
        "outcome": one.outcome,
        "reason": visible_lines(one.reason),
        "count": one.count,
        "first_at": iso(one.first_at),
        "last_at": iso(one.last_at),
        "nodes": [_named(node_id, signs) for node_id in one.node_ids[:_NAMED]],
        "nodes_in_all": len(one.node_ids),
    }


def _node(node: Node, sign: NodeSign) -> dict[str, Any]:
    return {
        "node_id": str(node.node_id),
        "name": visible_name(node.name or ""),
        "location": visible_name(node.location or ""),
        "owner": visible_name(node.owner_name),
        "status": str(node.status),
        "registered_at": iso(node.registered_at),
        "online_since": iso(node.last_activated_at),
        "heard_at": iso(sign.heard_at),
        "version": visible_name(sign.version or ""),
        "address": visible_name(sign.address or ""),
        "is_unheard": sign.is_unheard,
        "clock_ahead": node.clock_ahead,
        "key_since": iso(node.key_since),
    }


def _run_of_node(one: RunOfNode) -> dict[str, Any]:
    return {
        **asdict(one),
        "run_id": str(one.run_id),
        "fab_id": visible_name(one.fab_id),
        "created_at": iso(one.created_at),
    }


def _record(record: NodeRecord | None) -> Map:
    if record is None:
        return {"runs": 0, "exchanges": 0, "failed": 0, "median_seconds": None} | {
            "bytes_sent": 0,
            "bytes_recv": 0,
        }
    return {name: value for name, value in asdict(record).items() if name != "node_id"}


def _total_rounds(config: Config) -> int | None:
    for key in _ROUNDS_KEYS:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
