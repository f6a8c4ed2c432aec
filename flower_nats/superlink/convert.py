"""From the model to the wire.

Texts that lists print are made harmless for terminals: see `model/visible.py`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from flower_nats.model.app_signature import LICENSE
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.model.config import Config, InvalidConfig
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import Invitation
from flower_nats.model.node import Node
from flower_nats.model.run import Run, Series
from flower_nats.model.task import Task
from flower_nats.model.visible import visible_lines, visible_name
from flower_nats.store.apps import App
from flower_nats.store.compacted_contexts import CompactedContext
from flower_nats.store.fabs import StoredFab
from flower_nats.store.task_events import Event
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control

_CONFIG_KINDS = ("double", "sint64", "bool", "string")
"""The kinds of `Scalar` that a configuration may hold (flwr 1.33 `common/serde.py`)."""


def iso(moment: datetime | None) -> str:
    """Write a moment as stock clients read it: ISO 8601 in UTC, empty for none."""
    return "" if moment is None else moment.astimezone(UTC).isoformat()


def now_iso() -> str:
    """Return the present moment as `iso` writes it."""
    return iso(datetime.now(UTC))


def run_to_wire(run: Run, account_name: str = "") -> common.Run:
    """Write a run; calls that show runs to people send `account_name`."""
    message = common.Run.FromString(run.override_config)
    message.MergeFrom(
        common.Run(
            run_id=run.run_id,
            fab_id=visible_name(run.fab_id),
            fab_version=visible_name(run.fab_version),
            fab_hash=run.fab_hash,
            pending_at=iso(run.pending_at),
            starting_at=iso(run.starting_at),
            running_at=iso(run.running_at),
            finished_at=iso(run.finished_at),
            status=common.RunStatus(
                status=run.status,
                sub_status=run.sub_status,
                details=visible_lines(run.details),
            ),
            flwr_aid=run.account_id,
            federation=run.federation,
            bytes_sent=run.bytes_sent,
            bytes_recv=run.bytes_recv,
            clientapp_runtime=run.clientapp_runtime,
            primary_task_type=run.primary_task_type,
            primary_task_id=run.primary_task_id,
            series_id=run.series_id,
            account_name=account_name,
        )
    )
    return message


def task_to_wire(task: Task) -> common.Task:
    """Write a task."""
    return common.Task(
        task_id=task.task_id,
        type=task.type,
        run_id=task.run_id,
        status=common.TaskStatus(
            status=task.status, sub_status=task.sub_status, details=task.details
        ),
        pending_at=iso(task.pending_at),
        starting_at=iso(task.starting_at),
        running_at=iso(task.running_at),
        finished_at=iso(task.finished_at),
        fab_hash=task.fab_hash,
        model_ref=task.model_ref,
        connector_ref=task.connector_ref,
    )


def node_to_wire(node: Node) -> common.NodeInfo:
    """Write a node."""
    return common.NodeInfo(
        node_id=node.node_id,
        owner_aid=node.owner_id,
        owner_name=node.owner_name,
        status=node.status,
        registered_at=iso(node.registered_at),
        last_activated_at=iso(node.last_activated_at) or None,
        last_deactivated_at=iso(node.last_deactivated_at) or None,
        unregistered_at=iso(node.unregistered_at) or None,
        online_until=None if node.online_until is None else node.online_until.timestamp(),
        heartbeat_interval=node.heartbeat_interval,
        public_key=node.public_key,
        location=None if node.location is None else visible_name(node.location),
        name=None if node.name is None else visible_name(node.name),
    )


def invitation_to_wire(invitation: Invitation) -> common.Invitation:
    """Write an invitation."""
    return common.Invitation(
        federation_name=invitation.federation,
        inviter=common.Account(id=invitation.inviter_id, name=invitation.inviter_name),
        invitee=common.Account(id=invitation.invitee_id, name=invitation.invitee_name),
        status=invitation.status,
        created_at=iso(invitation.created_at),
        status_changed_at=iso(invitation.changed_at),
    )


def series_to_wire(series: Series) -> common.RunSeries:
    """Write a run series."""
    message = common.RunSeries(
        series_id=series.series_id,
        federation=series.federation,
        description=visible_name(series.description),
        created_at=iso(series.created_at),
        updated_at=iso(series.updated_at),
        run_ids=series.run_ids,
    )
    if series.last_status is not None:
        message.last_run_status.status = series.last_status
        message.last_run_status.sub_status = series.last_sub_status
        message.last_run_status.details = visible_lines(series.last_details)
    return message


def fab_to_wire(fab: StoredFab) -> common.Fab:
    """Write a FAB with its verifications."""
    # Without this entry, stock assumes that this server does not support signatures.
    verifications = {**fab.verifications, LICENSE: "Valid"}
    return common.Fab(hash_str=fab.fab_hash, content=fab.content, verifications=verifications)


def event_to_wire(event: Event) -> common.TaskEvent:
    """Write an event of a task."""
    return common.TaskEvent(
        id=event.event_id,
        timestamp=iso(event.created_at),
        run_id=event.run_id,
        task_id=event.task_id,
        event=event.event,
        data=event.data,
    )


def app_to_wire(app: App) -> control.AppInfo:
    """Write an app of a federation."""
    return control.AppInfo(
        app_id=visible_name(app.app_id),
        fab_hash=app.fab_hash,
        app_type=app.app_type,
        is_hub_app=False,
        display_name=visible_name(app.display_name),
        description=visible_name(app.description),
        color=visible_name(app.color),
    )


def context_to_wire(context: CompactedContext) -> common.CompactedContext:
    """Write a summary of a series."""
    return common.CompactedContext(
        id=context.context_id,
        series_id=context.series_id,
        through_event_id=context.through_event_id,
        text=context.text,
        created_at=iso(context.created_at),
        token_count=context.token_count,
    )


def config_from_wire(values: Mapping[str, common.Scalar]) -> Config:
    """Read a configuration; raises `InvalidConfig` for a value that no configuration may hold."""
    config: Config = {}
    for name, scalar in values.items():
        kind = scalar.WhichOneof("scalar")
        if kind not in _CONFIG_KINDS:
            raise InvalidConfig(
                f'The value given for "{name}" must be a boolean, a number or a string.'
            )
        config[name] = getattr(scalar, kind)
    return config


def config_to_bytes(values: Mapping[str, common.Scalar]) -> bytes:
    """Write a configuration for the database: unchanged, in a `Run` of its own."""
    run = common.Run()
    for name, scalar in values.items():
        run.override_config[name].CopyFrom(scalar)
    return run.SerializeToString(deterministic=True)


def next_context(previous: bytes, run_id: int, series_id: int) -> bytes:
    """Return the context with which a run starts: the state of its series, everything else new.

    Raises `ApiError` (FAILED_TO_CREATE_RUN) if the stored bytes are not a context.
    """
    try:
        state = common.Context.FromString(previous).state
    except DecodeError as exc:
        text = f"The context that series {series_id} has come to cannot be read."
        raise ApiError(ErrorCode.FAILED_TO_CREATE_RUN, text, text) from exc
    return common.Context(
        run_id=run_id, node_id=SUPERLINK_NODE_ID, state=state, series_id=series_id
    ).SerializeToString()
