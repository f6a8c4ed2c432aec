"""The state of the runtime, as one superlink sees it, for `flower-nats status` and metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from flower_nats.broker.connection import Connection
from flower_nats.broker.durability import ALWAYS
from flower_nats.broker.durability import durability as broker_durability
from flower_nats.broker.in_flight import InFlight
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label, gauge
from flower_nats.model import certificates
from flower_nats.model.errors import Unavailable
from flower_nats.model.exposure import together, warnings
from flower_nats.model.states import NodeStatus, Status
from flower_nats.store.connection import Database
from flower_nats.store.durability import durability as database_durability
from flower_nats.store.nodes import Nodes
from flower_nats.store.replicas import Replica, Replicas
from flower_nats.store.runs import Runs
from flower_nats.store.server_certificate import server_certificate
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.convert import now_iso
from flower_nats.superlink.housekeeping.room_watch import RoomWatch
from flower_nats.superlink.housekeeping.stream_keeper import StreamKeeper
from flower_nats.superlink.operators.problems import problems
from flower_nats.superlink.operators.who_is_there import (
    clients_there,
    nodes_there,
    replicas_there,
    superexecs_there,
)

log = get_logger(__name__)

_SCRAPE_SECONDS = 3.0
"""Seconds that metrics wait for broker and database. Prometheus waits for 10 s by default."""

_DURABILITY_SECONDS = 2.0
"""Seconds that the report waits for the durability."""

_DATABASE_SECONDS = 2.5
"""Seconds that the report waits for the database. A caller asks again after 3 s without an answer
(`broker.rpc`), so the report asks broker and database at the same time."""

_IN_FLIGHT_SECONDS = 1.0
"""Seconds that the report waits for the messages in flight."""

_MOST_NODES = 1_000
"""The most nodes in the list, online ones first."""

_ENDS = ("completed", "failed", "stopped")

Map = Mapping[str, Any]


class StatusReport:
    """Reads the state of the runtime, anew for each question."""

    def __init__(
        self,
        database: Database,
        connection: Connection,
        trials: StreamTrials,
        room: RoomWatch,
        streams: StreamKeeper,
        *,
        accounts: bool,
        only_registered: bool,
    ) -> None:
        """`accounts` and `only_registered` are those of `warnings`."""
        self._accounts = accounts
        self._only_registered = only_registered
        self._mailbox = Mailbox(connection)
        self._database = database
        self._connection = connection
        self._streams = streams
        self._trials = trials
        self._room = room

    async def report(self) -> dict[str, Any]:
        """Return the whole report, as far as broker and database answer.

        {now, problems, not_stored, streams_lost, room, database, durability}; if the database answers,
        {runs, nodes, replicas, superexecs, nodes_listed, clients, certificates, warnings}. `problems`
        are what makes the runtime unhealthy; `not_stored` are the streams that do not store, each with
        the reason; `streams_lost` says how many this superlink has found missing; `durability`
        is None if broker or database do not tell it now; `nodes_listed` are at most `_MOST_NODES`.
        """
        report: dict[str, Any] = {
            "now": now_iso(),
            "not_stored": self._trials.reasons,
            "streams_lost": self._streams.lost,
            "room": self._room.report(),
            "database": {"healthy": True},
            "durability": None,
        }
        of_database, found = await asyncio.gather(self._of_database_in_time(), self._durability())
        report |= of_database
        if report["database"]["healthy"]:
            report["durability"] = found
        return {**report, "problems": list(problems(report))}

    async def _of_database_in_time(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_DATABASE_SECONDS):
                return await self._of_database()
        except (Unavailable, TimeoutError) as exc:
            return {"database": {"healthy": False, "reason": _reason(exc)}}

    async def _of_database(self) -> dict[str, Any]:
        replicas = await Replicas(self._database).alive()
        nodes = await Nodes(self._database).listed(_MOST_NODES)
        tasks = await Tasks(self._database).under_way()
        exposed = together(one.about.get("exposure", {}) for one in replicas)
        shown = await self._certificates(replicas)
        superexecs = superexecs_there(replicas, tasks, time.time())
        return {
            **await self._counts(),
            "replicas": replicas_there(replicas),
            "superexecs": superexecs,
            "nodes_listed": nodes_there(nodes, await self._in_flight()),
            "clients": clients_there(
                replicas, superexecs, await Nodes(self._database).versions_online()
            ),
            "certificates": shown,
            "warnings": [
                *warnings(exposed, accounts=self._accounts, only_registered=self._only_registered),
                *certificates.expiring(shown),
            ],
        }

    async def _certificates(self, replicas: Iterable[Replica]) -> list[Map]:
        """Describe the certificates that gateways show clients, and NATS and PostgreSQL show us."""
        told = [one for replica in replicas for one in replica.about.get("certificates", ())]
        of_database = await server_certificate(self._database)
        return certificates.together(
            [
                *told,
                *certificates.shown(self._connection.server_certificate, "NATS"),
                *certificates.shown(of_database, "PostgreSQL"),
            ]
        )

    async def _counts(self) -> dict[str, Any]:
        runs = await Runs(self._database).counts()
        order = (*(status for status in Status if status is not Status.FINISHED), *_ENDS)
        return {
            "runs": {str(one): runs[one] for one in order if one in runs},
            "nodes": await Nodes(self._database).counts(),
        }

    async def _in_flight(self) -> Mapping[int, InFlight]:
        """Return the messages in flight; empty if the broker does not answer in time."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_IN_FLIGHT_SECONDS):
                return await self._mailbox.in_flight()
        return {}

    async def _durability(self) -> dict[str, Any] | None:
        """Return the durability; None if broker or database do not tell it in time."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_DURABILITY_SECONDS):
                return await durability(self._database, self._connection)
        return None

    async def metrics(self) -> list[Metric]:
        """Return the report as numbers; while broker or database is away, only that fact."""
        try:
            async with asyncio.timeout(_SCRAPE_SECONDS):
                report = await self._for_metrics()
        except (Unavailable, TimeoutError) as exc:
            log.warning("metrics_incomplete", reason=repr(exc))
            report = None
        answered = report is not None and report["durability"] is not None
        complete = gauge("report_complete", "Whether broker and database answered.", answered)
        return [
            complete,
            *self._trials.metrics(),
            *self._streams.metrics(),
            *self._room.metrics(),
            *(_metrics(report) if report else ()),
        ]

    async def _for_metrics(self) -> dict[str, Any]:
        replicas = await Replicas(self._database).alive()
        return {
            **await self._counts(),
            "replicas": replicas_there(replicas),
            "superexecs": superexecs_there(replicas, (), time.time()),
            "durability": await self._durability(),
        }


def _reason(exc: Exception) -> str:
    """Return the first line of the driver's error."""
    return next(iter(str(exc).splitlines()), "").removeprefix("the database cannot answer: ")


async def durability(database: Database, connection: Connection) -> dict[str, Any]:
    """Return the durability that the present servers provide. Raises `Unavailable`."""
    return {
        "database": await database_durability(database),
        "broker": await broker_durability(connection),
    }


def _metrics(report: Map) -> list[Metric]:
    ends = {str(way): report["runs"].get(way, 0) for way in _ENDS}
    runs = {str(status): report["runs"].get(status, 0) for status in Status}
    runs[Status.FINISHED] = sum(ends.values())
    superexecs = Counter(bool(one["refused"]) for one in report["superexecs"])
    nodes = {str(status): 0 for status in NodeStatus} | report["nodes"]
    replicas = Counter(replica["kind"] for replica in report["replicas"])
    kinds = {kind: replicas[kind] for kind in ("gateway", "superlink")}
    return [
        by_label("runs", "Runs of the federation by status.", "status", runs),
        by_label("finished_runs", "Finished runs by how they have ended.", "how", ends),
        gauge(
            "superexecs",
            "SuperExecs that were heard lately: without one, runs wait.",
            superexecs[False],
        ),
        gauge("superexecs_refused", "SuperExecs that were refused lately.", superexecs[True]),
        by_label("nodes", "SuperNodes of the federation by status.", "status", nodes),
        by_label("replicas", "Processes of the runtime that were seen lately.", "kind", kinds),
        *(_durability_metrics(**promises) if (promises := report["durability"]) else ()),
    ]


def _durability_metrics(broker: Map, database: Map) -> list[Metric]:
    on_disk = broker["sync"] == ALWAYS and database["synced"]
    servers = {name: sync == ALWAYS for name, sync in broker["servers"].items()}
    return [
        gauge(
            "durability",
            "Always 1: what the servers do with what they acknowledge is in the labels.",
            1,
            broker_sync=broker["sync"],
            replicas=str(broker["replicas"]),
            postgres_fsync="on" if database["fsync"] else "off",
            postgres_synchronous_commit=database["synchronous_commit"],
        ),
        gauge(
            "acknowledged_is_on_disk",
            "1 if what was acknowledged survives a power cut; 0 also if a server was not heard.",
            on_disk,
        ),
        by_label(
            "broker_syncs_always",
            "1 if this NATS server syncs before it acknowledges; 0 also if it was not heard.",
            "server",
            servers,
        ),
        gauge("broker_copies", "Servers that hold each message.", broker["replicas"]),
        gauge("database_standbys", "Servers that follow the database.", database["standbys"]),
        gauge(
            "database_synchronous_standbys",
            "Those of them that commits wait for; 0 also if our role may not see which these are.",
            database["synchronous_standbys"] or 0,
        ),
    ]
