"""The parts of a superlink: the handler of every RPC, and every piece of housekeeping."""

from collections.abc import Mapping
from dataclasses import dataclass

from flower_nats.broker.connection import Connection
from flower_nats.broker.exchange_notes import ExchangeNotes
from flower_nats.broker.hints import Hints
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.pushers import Pushers
from flower_nats.broker.runlog import RunLogs
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.broker.subjects import CONSOLE, INTERNAL, OPERATOR
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.connection import Database
from flower_nats.store.fabs import Fabs
from flower_nats.store.members import Members
from flower_nats.store.nodes import Nodes
from flower_nats.store.replicas import Replicas
from flower_nats.store.runs import Runs
from flower_nats.store.runtime_events import RuntimeEvents
from flower_nats.superlink.accounts.audit import AuditApi, Auditor, AuditRetention
from flower_nats.superlink.accounts.guard import Guard
from flower_nats.superlink.accounts.identity import Followers, Identity
from flower_nats.superlink.accounts.logins import LoginApi
from flower_nats.superlink.accounts.task_identity import TaskIdentity
from flower_nats.superlink.api.control import ControlApi
from flower_nats.superlink.api.control_apps import AppsApi
from flower_nats.superlink.api.control_artifacts import ArtifactsApi
from flower_nats.superlink.api.control_federations import FederationsApi
from flower_nats.superlink.api.control_runs import ControlRunsApi
from flower_nats.superlink.api.control_series import SeriesApi
from flower_nats.superlink.api.fleet import FleetApi
from flower_nats.superlink.api.gateway_questions import GatewayQuestions
from flower_nats.superlink.api.runtime import RuntimeApi
from flower_nats.superlink.api.runtime_agents import AgentsApi
from flower_nats.superlink.api.runtime_tasks import TaskWorkApi
from flower_nats.superlink.codecs import BytesHandler, serve_internal, serve_protobuf
from flower_nats.superlink.console.error_groups import ErrorQuestions
from flower_nats.superlink.console.event_questions import EventQuestions
from flower_nats.superlink.console.exchange_history import ExchangeHistory
from flower_nats.superlink.console.known import for_operators
from flower_nats.superlink.console.log_search import LogSearch
from flower_nats.superlink.console.questions import ConsoleQuestions
from flower_nats.superlink.console.run_figures import RunFigures
from flower_nats.superlink.housekeeping.housekeeper import MetadataHousekeeping, Piece
from flower_nats.superlink.housekeeping.log_retention import LogRetention
from flower_nats.superlink.housekeeping.messages import MessageHousekeeping
from flower_nats.superlink.housekeeping.replica_watch import LOOK_EVERY, ReplicaWatch
from flower_nats.superlink.housekeeping.room_watch import RoomWatch
from flower_nats.superlink.housekeeping.run_retention import RunRetention
from flower_nats.superlink.housekeeping.runtime_watch import RuntimeWatch
from flower_nats.superlink.housekeeping.stream_keeper import StreamKeeper
from flower_nats.superlink.housekeeping.webhook_sender import SEND_EVERY, WebhookSender
from flower_nats.superlink.operators.accounts import AccountsAdmin
from flower_nats.superlink.operators.questions import OperatorQuestions
from flower_nats.superlink.operators.rights import OperatorRights
from flower_nats.superlink.operators.status_report import StatusReport
from flower_nats.superlink.operators.webhooks import WebhookAdmin
from flower_nats.superlink.runs.federations import KnownFederations
from flower_nats.superlink.runs.lifecycle import Lifecycle
from flower_nats.superlink.runs.run_deletion import RunDeletion
from flower_nats.superlink.runs.shutdown import ShutdownApi

_SWEEP_EVERY = 2.0
"""Seconds between two looks at the messages in flight."""

_FORGET_AUDIT_EVERY = 600.0
"""Seconds between two looks for audit events that are old enough to be removed."""

_TRIM_EVENTS_EVERY = 600.0
"""Seconds between two looks for events of the runtime that are old enough to be removed."""

_DELETE_RUNS_EVERY = 60.0
"""Seconds between two looks for runs that are old enough to be deleted."""

_REMOVE_LOGS_EVERY = 60.0
"""Seconds between two looks for logs that are old enough to be removed."""


@dataclass(frozen=True)
class Watches:
    """The watches of a superlink."""

    trials: StreamTrials
    room: RoomWatch
    streams: StreamKeeper
    runtime: RuntimeWatch
    overview: StatusReport
    notes: ExchangeNotes
    figures: RunFigures


def watches(settings: SuperlinkSettings, database: Database, connection: Connection) -> Watches:
    """Create the watches, without looking at anything yet."""
    trials, room = StreamTrials(connection), RoomWatch(connection, settings.watch_disk)
    figures = RunFigures(database)
    lifecycle = Lifecycle(Hints(connection), Mailbox(connection), figures.run_ended)
    streams = StreamKeeper(connection, database, lifecycle)
    overview = StatusReport(
        database,
        connection,
        trials,
        room,
        streams,
        accounts=settings.accounts,
        only_registered=settings.only_registered_supernodes,
    )
    runtime = RuntimeWatch(database, connection, trials, room)
    return Watches(trials, room, streams, runtime, overview, ExchangeNotes(), figures)


def handlers(
    settings: SuperlinkSettings, database: Database, connection: Connection, watched: Watches
) -> Mapping[tuple[str, str], BytesHandler]:
    """Return the handler of every RPC that superlinks serve."""
    hints, mailbox = Hints(connection), Mailbox(connection)
    lifecycle = Lifecycle(hints, mailbox, watched.figures.run_ended)
    federations = KnownFederations(database, simulation=settings.simulation)
    identity = Identity(database, accounts=settings.accounts)
    guard = Guard(database)
    artifacts = ArtifactsApi(database, identity, guard, settings.max_artifacts)
    fleet = FleetApi(
        Nodes(database),
        Runs(database),
        Fabs(database),
        Members(database),
        hints,
        mailbox,
        supernode_auth=settings.only_registered_supernodes,
    )
    logins = LoginApi(database, hints, accounts=settings.accounts, oidc=settings.oidc)
    public = {
        "Fleet": fleet.handlers(),
        "Runtime": {
            **RuntimeApi(database, lifecycle).handlers(),
            **TaskWorkApi(database, lifecycle).handlers(),
            **AgentsApi(database, Objects(connection)).handlers(),
        },
        "Control": {
            **logins.handlers(),
            **ControlApi(database, hints).handlers(),
            **ControlRunsApi(
                database, lifecycle, federations, watched.trials, watched.room
            ).handlers(),
            **SeriesApi(database).handlers(),
            **artifacts.handlers(),
            **AppsApi(database).handlers(),
            **FederationsApi(database, lifecycle, federations, hints).handlers(),
        },
    }
    tasks = TaskIdentity(database)
    public["Runtime"] = {
        name: tasks.guard(name, handler) for name, handler in public["Runtime"].items()
    }
    auditor = Auditor(database, identity)
    public["Control"] = {
        name: auditor.guard(name, guard.guard(name, handler))
        for name, handler in public["Control"].items()
    }
    questions = GatewayQuestions(
        database, lifecycle, supernode_auth=settings.only_registered_supernodes
    )
    own = {
        INTERNAL: {
            **questions.handlers(),
            **Followers(identity, guard).handlers(),
            **logins.internal_handlers(),
            **artifacts.internal_handlers(),
            **ExchangeHistory(database).handlers(),
        },
        OPERATOR: {
            **OperatorQuestions(database, mailbox, watched.overview).handlers(),
            **AccountsAdmin(database, hints).handlers(),
            **AuditApi(database).handlers(),
            **OperatorRights(database, hints).handlers(),
            **ShutdownApi(database, lifecycle).handlers(),
            **RunDeletion(database, mailbox, RunLogs(connection), hints).handlers(),
            **WebhookAdmin(database).handlers(),
        },
        CONSOLE: {
            **ConsoleQuestions(
                database, RunLogs(connection), identity, guard, watched.overview
            ).handlers(),
            **EventQuestions(database, identity).handlers(),
            **ErrorQuestions(database, identity).handlers(),
            **LogSearch(database, RunLogs(connection), identity, guard).handlers(),
            **for_operators(identity, WebhookAdmin(database).handlers()),
        },
    }
    return {
        **{
            (service, name): serve_protobuf(service, name, handler)
            for service, table in public.items()
            for name, handler in table.items()
        },
        **{
            (service, name): serve_internal(
                service, name, auditor.guard_internal(service, name, handler)
            )
            for service, table in own.items()
            for name, handler in table.items()
        },
    }


def pieces(
    settings: SuperlinkSettings,
    database: Database,
    connection: Connection,
    watched: Watches,
    pushers: Pushers,
) -> list[Piece]:
    """Return every piece of housekeeping there is."""
    notes, history = watched.notes, ExchangeHistory(database)
    mailbox = Mailbox(connection, notes)
    hints = Hints(connection)
    lifecycle = Lifecycle(hints, mailbox, watched.figures.run_ended)
    messages = MessageHousekeeping(
        mailbox,
        Objects(connection),
        Nodes(database).reachable,
        Runs(database).statuses,
        Replicas(database).is_heard,
        pushers,
    )
    audit = AuditRetention(database, settings.audit_retention)
    days, kept = settings.log_retention, settings.run_retention
    deletion = RunDeletion(database, mailbox, RunLogs(connection), hints)
    old_runs = RunRetention(database, deletion, kept)
    retention = LogRetention(database, RunLogs(connection), days)
    silence = ReplicaWatch(Replicas(database), lambda: connection.is_connected)

    # Without accounts, the user who adds a webhook is on this machine, or was let in like one.
    sender = WebhookSender(database, loopback=not settings.accounts)

    async def trim_events() -> None:
        await RuntimeEvents(database).trim()

    return [
        Piece("messages", _SWEEP_EVERY, history.noting(notes, messages.sweep)),
        *MetadataHousekeeping(
            database, lifecycle, mailbox, hints, settings.node_retention
        ).pieces(),
        Piece("lost replicas", LOOK_EVERY, silence.look),
        Piece("webhooks", SEND_EVERY, sender.send),
        Piece("events", _TRIM_EVENTS_EVERY, trim_events),
        *([Piece("logs", _REMOVE_LOGS_EVERY, retention.remove_logs)] if days else []),
        *([Piece("old runs", _DELETE_RUNS_EVERY, old_runs.delete_runs)] if kept else []),
        *([Piece("audit", _FORGET_AUDIT_EVERY, audit.forget)] if settings.audit_retention else []),
    ]
