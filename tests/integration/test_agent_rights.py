"""Every call of the Fleet and the Runtime API, about the caller's own things and others' things."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message as ProtoMessage

from flower_nats.broker.connection import Connection
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.runlog import RunLogs
from flower_nats.model.errors import CATALOGUE, ErrorCode
from flower_nats.store.members import Members
from flower_nats.store.runs import Runs
from flower_nats.store.task_messages import TaskMessage, TaskMessages
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME, FLEET, RUNTIME, CallerKind
from harness.accounts import log_in
from harness.agent_rights import AGENT_RIGHTS, EMPTY, NOTHING, YES, Outcome, Whose
from harness.channels import Metadata, Refused, WireName
from harness.children import PATIENCE
from harness.clients import ServerApp, SuperNode
from harness.fabs import make_fab
from harness.messages import Parcel, instruction, parcel, reply
from harness.superexec import superexec_proof
from tests.integration.gateways import Gateway, running_stack

SECRET = b"0123456789abcdef0123456789abcdef"


@dataclass
class Theirs:
    """A run, and a SuperNode that it reaches."""

    app: ServerApp
    helper: ServerApp
    """Another task of the run."""
    node: SuperNode

    async def instruct(self) -> Parcel:
        """Put an instruction with its objects into the mailbox of the node."""
        sent = instruction(self.app.run_id, self.node.node_id)
        assert await self.app.send(sent) == [sent.message_id]
        return sent

    async def answered(self) -> Parcel:
        """Put a reply into the mailbox of the app."""
        answer = reply(await self.instruct())
        await self.node.send(answer)
        return answer


@dataclass
class Scene:
    """Two federations: the first has two runs and two SuperNodes, the second one of each."""

    gateway: Gateway
    connection: Connection
    wire: WireName
    metadata: dict[str, Metadata] = field(default_factory=dict)
    theirs: dict[Whose, Theirs] = field(default_factory=dict)

    @property
    def own(self) -> Theirs:
        """The node and the task that make the calls."""
        return self.theirs[Whose.OWN]

    async def superexec(self, name: str, request: ProtoMessage, secret: bytes = SECRET) -> Any:
        """Call like a SuperExec."""
        method, body = BY_NAME[("Runtime", name)], request.SerializeToString()
        proof = superexec_proof(secret, method, self.wire, body)
        return method.response.FromString(
            await self.gateway.call_bytes("Runtime", name, body, proof)
        )

    async def let_in(self, owner: str) -> str:
        """Make an account with a federation; return the federation's name."""
        logged_in = await log_in(self.gateway.superlink.database, owner)
        federation = f"@{owner}/lab"
        self.metadata[federation] = logged_in.metadata(self.wire)
        await self.control(federation, "CreateFederation", federation_name="lab")
        return federation

    async def control(self, whose: str, name: str, **fields: Any) -> Any:
        """Call as the owner of a federation."""
        request = BY_NAME[("Control", name)].request(**fields)
        return await self.gateway.call("Control", name, request, self.metadata[whose])

    async def node(self, federation: str) -> SuperNode:
        """Register a SuperNode, bring it online, and add it to a federation."""
        node = SuperNode(self.gateway)
        await self.control(federation, "RegisterNode", public_key=node.public_key)
        await node.activate()
        await Members(self.gateway.superlink.database).add_node(federation, node.node_id)
        return node

    async def start_run(self, federation: str) -> int:
        """Start a run; its task waits for a SuperExec."""
        fab = common.Fab(content=make_fab())
        started = await self.control(federation, "StartRun", fab=fab, federation=federation)
        return int(started.run_id)

    async def take(self, kind: str) -> ServerApp:
        """Take a waiting task, and begin it."""
        request = runtime.AcquireTaskRequest(supported_task_types=[kind])
        taken = await self.superexec("AcquireTask", request)
        app = ServerApp(self.gateway, taken.task.run_id, taken.task.task_id, taken.token)
        await app.call("PullTaskInput", runtime.PullTaskInputRequest())
        return app

    async def app(self, federation: str) -> tuple[ServerApp, ServerApp]:
        """Start a ServerApp, and another task of its run."""
        run_id = await self.start_run(federation)
        app = await self.take("flwr-serverapp")
        await app.call("CreateTask", runtime.CreateTaskRequest(type="flwr-model", model_ref="m"))
        helper = await self.take("flwr-model")
        assert {app.run_id, helper.run_id} == {run_id}
        return app, helper


@pytest.fixture
async def scene(
    connection: Connection, nats_url: str, pg_dsn: str, wire: WireName, tmp_path: Path
) -> AsyncIterator[Scene]:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    async with running_stack(
        nats_url,
        pg_dsn,
        wire,
        superlink={"accounts": True, "supernode_self_registration": True},
        superexec_auth_secret_file=secret,
    ) as gateway:
        scene = Scene(gateway, connection, wire)
        lab, foreign = await scene.let_in("ana"), await scene.let_in("ben")
        app, helper = await scene.app(lab)
        other = await scene.node(lab)
        scene.theirs = {
            Whose.OWN: Theirs(app, helper, await scene.node(lab)),
            Whose.OTHER: Theirs(app, helper, other),
            Whose.OTHER_RUN: Theirs(*await scene.app(lab), other),
            Whose.OTHER_FEDERATION: Theirs(*await scene.app(foreign), await scene.node(foreign)),
        }
        yield scene


Case = Callable[[Scene, Theirs], Awaitable[Outcome]]
"""Makes a call about things of some owner; returns the outcome of a call that is not refused."""


def _said(done: bool, otherwise: Outcome) -> Outcome:
    return YES if done else otherwise


# SuperNodes


async def _register(scene: Scene, theirs: Theirs) -> Outcome:
    node = SuperNode(scene.gateway)
    request = fleet.RegisterNodeFleetRequest(public_key=node.public_key)
    return _said((await node.call("RegisterNode", request)).node_id != 0, EMPTY)


async def _activate(scene: Scene, theirs: Theirs) -> Outcome:
    await theirs.node.activate()
    return YES


async def _deactivate(scene: Scene, theirs: Theirs) -> Outcome:
    request = fleet.DeactivateNodeRequest(node_id=theirs.node.node_id)
    await theirs.node.call("DeactivateNode", request)
    return YES


async def _unregister(scene: Scene, theirs: Theirs) -> Outcome:
    # Only an account can remove its SuperNodes; this SuperNode has registered itself.
    node = SuperNode(scene.gateway)
    await node.call("RegisterNode", fleet.RegisterNodeFleetRequest(public_key=node.public_key))
    await node.activate()
    await node.call("UnregisterNode", fleet.UnregisterNodeFleetRequest(node_id=node.node_id))
    return YES


async def _node_heartbeat(scene: Scene, theirs: Theirs) -> Outcome:
    request = fleet.SendNodeHeartbeatRequest(node=scene.own.node.node, heartbeat_interval=30)
    return _said((await scene.own.node.call("SendNodeHeartbeat", request)).success, EMPTY)


async def _node_pull(scene: Scene, theirs: Theirs) -> Outcome:
    node = scene.own.node
    for each in (*scene.theirs.values(), theirs):
        sent = await each.instruct()
    # The node gets only its own instructions, this one among them.
    while (found := await node.pull())[0].metadata.message_id != sent.message_id:
        assert found[0].metadata.dst_node_id == node.node_id
        await node.confirm(found[0].metadata.run_id, found[0].metadata.message_id)
    return YES


async def _node_push(scene: Scene, theirs: Theirs) -> Outcome:
    answer = reply(await theirs.instruct())
    run_id, node_id = theirs.app.run_id, scene.own.node.node_id
    return _said(
        (await scene.own.node.push(parcel(answer.flwr, run_id, node_id))).session_id, NOTHING
    )


async def _get_run(scene: Scene, theirs: Theirs) -> Outcome:
    request = common.GetRunRequest(node=scene.own.node.node, run_id=theirs.app.run_id)
    found = await scene.own.node.call("GetRun", request)
    return _said(found.run.run_id == theirs.app.run_id, EMPTY)


async def _get_fab(scene: Scene, theirs: Theirs) -> Outcome:
    run = await Runs(scene.gateway.superlink.database).get(theirs.app.run_id)
    assert run is not None
    request = common.GetFabRequest(
        node=scene.own.node.node, run_id=run.run_id, hash_str=run.fab_hash
    )
    return _said((await scene.own.node.call("GetFab", request)).fab.content != b"", EMPTY)


async def _node_push_object(scene: Scene, theirs: Theirs) -> Outcome:
    answer, run_id = reply(await theirs.instruct()), theirs.app.run_id
    session_id = (await theirs.node.push(answer)).session_id
    object_id, content = next(iter(answer.objects.items()))
    await scene.own.node.push_object(run_id, session_id, object_id, content)
    return _said(await Objects(scene.connection).exists(run_id, object_id), NOTHING)


async def _node_pull_object(scene: Scene, theirs: Theirs) -> Outcome:
    sent = await theirs.instruct()
    object_id, content = next(iter(sent.objects.items()))
    found = await scene.own.node.pull_object(theirs.app.run_id, object_id)
    return _said(found.object_content == content, EMPTY)


async def _node_confirm(scene: Scene, theirs: Theirs) -> Outcome:
    sent = await theirs.instruct()
    mailbox, node_id = Mailbox(scene.connection), theirs.node.node_id
    while (found := await mailbox.next_instruction(node_id)) is not None:
        if found.key.message_id == sent.message_id:
            break
        await theirs.node.confirm(found.key.run_id, found.key.message_id)
    await scene.own.node.confirm(theirs.app.run_id, sent.message_id)
    return _said(await Mailbox(scene.connection).next_instruction(node_id) is None, NOTHING)


# SuperExecs


async def _pending(scene: Scene, theirs: Theirs) -> Outcome:
    run_id = await _waiting(scene, theirs)
    found = await scene.superexec("PullPendingTasks", runtime.PullPendingTasksRequest())
    return _said(run_id in {task.run_id for task in found.tasks}, EMPTY)


async def _claim(scene: Scene, theirs: Theirs) -> Outcome:
    run = await Runs(scene.gateway.superlink.database).get(await _waiting(scene, theirs))
    assert run is not None
    request = runtime.ClaimTaskRequest(task_id=run.primary_task_id)
    return _said((await scene.superexec("ClaimTask", request)).token != "", EMPTY)


async def _acquire(scene: Scene, theirs: Theirs) -> Outcome:
    run_id, taken = await _waiting(scene, theirs), 0
    while taken != run_id:
        taken = (await scene.take("flwr-serverapp")).run_id
    return YES


async def _waiting(scene: Scene, theirs: Theirs) -> int:
    run = await Runs(scene.gateway.superlink.database).get(theirs.app.run_id)
    assert run is not None
    return await scene.start_run(run.federation)


async def _superexec_get_run(scene: Scene, theirs: Theirs) -> Outcome:
    found = await scene.superexec("GetRun", common.GetRunRequest(run_id=theirs.app.run_id))
    return _said(found.run.run_id == theirs.app.run_id, EMPTY)


# Tasks


def _about_itself(name: str, **fields: Any) -> Case:
    """Return a case of a call with a request that names nothing."""

    async def case(scene: Scene, theirs: Theirs) -> Outcome:
        await scene.own.app.call(name, BY_NAME[("Runtime", name)].request(**fields))
        return YES

    return case


async def _push_object(scene: Scene, theirs: Theirs) -> Outcome:
    sent, run_id = instruction(theirs.app.run_id, theirs.node.node_id), theirs.app.run_id
    session_id = (await theirs.app.push(sent)).session_id
    object_id, content = next(iter(sent.objects.items()))
    pusher = ServerApp(scene.gateway, run_id, 0, scene.own.app.token)
    await pusher.push_object(session_id, object_id, content)
    return _said(await Objects(scene.connection).exists(run_id, object_id), NOTHING)


async def _pull_object(scene: Scene, theirs: Theirs) -> Outcome:
    object_id, content = next(iter((await theirs.answered()).objects.items()))
    reader = ServerApp(scene.gateway, theirs.app.run_id, 0, scene.own.app.token)
    return _said((await reader.pull_object(object_id)).object_content == content, EMPTY)


async def _confirm(scene: Scene, theirs: Theirs) -> Outcome:
    answers = [await theirs.answered(), await scene.own.answered()]
    confirming = ServerApp(scene.gateway, theirs.app.run_id, 0, scene.own.app.token)
    for answer in answers:
        await confirming.confirm(answer.message_id)
    mailbox = Mailbox(scene.connection)
    async with asyncio.timeout(PATIENCE):
        while _is_there(await mailbox.in_flight(), answers[-1]):
            await asyncio.sleep(0.05)
    return _said(not _is_there(await mailbox.in_flight(), answers[0]), NOTHING)


def _is_there(flights: Mapping[int, Any], answer: Parcel) -> bool:
    metadata = answer.outgoing.metadata
    flight = flights.get(metadata.run_id)
    return flight is not None and metadata.reply_to_message_id in flight.replies


def _task_message(src: ServerApp, dst: ServerApp) -> common.Message:
    message = instruction(src.run_id, 1).proto
    message.metadata.message_id = f"{src.task_id}-{dst.task_id}-{time.time_ns()}"
    message.metadata.src_task_id, message.metadata.dst_task_id = src.task_id, dst.task_id
    message.content = b""
    return message


async def _push_task_message(scene: Scene, theirs: Theirs) -> Outcome:
    src, dst = scene.own.app, theirs.helper
    if theirs is scene.theirs[Whose.OTHER]:
        src, dst = theirs.helper, scene.own.app
    request = runtime.PushTaskMessageRequest(message=_task_message(src, dst))
    await scene.own.app.call("PushTaskMessage", request)
    return YES


async def _pull_task_message(scene: Scene, theirs: Theirs) -> Outcome:
    src, dst = theirs.app, theirs.helper
    if theirs is scene.own:
        src, dst = dst, src
    message = _task_message(src, dst)
    metadata, now = message.metadata, time.time()
    stored = TaskMessage(
        message_id=metadata.message_id,
        run_id=src.run_id,
        src_task_id=src.task_id,
        dst_task_id=dst.task_id,
        created_at=now,
        expires_at=now + 60,
        body=message.SerializeToString(),
    )
    assert await TaskMessages(scene.gateway.superlink.database).put(stored)
    request = runtime.PullTaskMessageRequest(src_task_id=src.task_id)
    return _said(bool((await scene.own.app.call("PullTaskMessage", request)).messages), EMPTY)


async def _push_events(scene: Scene, theirs: Theirs) -> Outcome:
    task, name = theirs.app, f"event-{time.time_ns()}"
    if theirs is scene.theirs[Whose.OTHER]:
        task = theirs.helper
    event = common.TaskEvent(run_id=task.run_id, task_id=task.task_id, event=name, data="{}")
    await scene.own.app.call("PushTaskEvents", runtime.PushTaskEventsRequest(events=[event]))
    row = await scene.gateway.superlink.database.fetch_one(
        "SELECT run_id, task_id FROM task_event WHERE event = %(name)s", name=name
    )
    assert row is not None
    return _said((row["run_id"], row["task_id"]) == (task.run_id, task.task_id), NOTHING)


async def _put_context(scene: Scene, theirs: Theirs) -> Outcome:
    run = await Runs(scene.gateway.superlink.database).get(theirs.app.run_id)
    assert run is not None
    request = runtime.PutCompactedContextRequest()
    request.context.series_id, request.context.text = run.series_id, "text"
    await scene.own.app.call("PutCompactedContext", request)
    return YES


async def _push_logs(scene: Scene, theirs: Theirs) -> Outcome:
    line, run_id = f"line {time.time_ns()}\n", theirs.app.run_id
    request = runtime.PushLogsRequest(node=common.Node(node_id=1), run_id=run_id, logs=[line])
    await scene.own.app.call("PushLogs", request)
    logs = RunLogs(scene.connection)
    async with asyncio.timeout(PATIENCE):
        while line not in (await logs.read(scene.own.app.run_id, 0))[0]:
            await asyncio.sleep(0.05)
    return _said(line in (await logs.read(run_id, 0))[0], NOTHING)


async def _push(scene: Scene, theirs: Theirs) -> Outcome:
    # The case of another federation names its node, in the own run: its run is just a foreign run.
    is_foreign = theirs is scene.theirs[Whose.OTHER_FEDERATION]
    run_id = scene.own.app.run_id if is_foreign else theirs.app.run_id
    pushed = await scene.own.app.push(instruction(run_id, theirs.node.node_id))
    return _said(all(pushed.message_ids), NOTHING)


async def _pull(scene: Scene, theirs: Theirs) -> Outcome:
    answer = await theirs.answered()
    wanted = answer.outgoing.metadata.reply_to_message_id
    found = await scene.own.app.pull(wanted)
    return _said(answer.message_id in {one.metadata.message_id for one in found}, EMPTY)


async def _get_nodes(scene: Scene, theirs: Theirs) -> Outcome:
    found = await scene.own.app.call("GetNodes", runtime.GetNodesRequest())
    ids = {node.node_id for node in found.nodes}
    assert scene.theirs[Whose.OTHER_FEDERATION].node.node_id not in ids
    return _said(theirs.node.node_id in ids, EMPTY)


CASES: Mapping[tuple[str, str], Case] = {
    ("Fleet", "RegisterNode"): _register,
    ("Fleet", "SendNodeHeartbeat"): _node_heartbeat,
    ("Fleet", "PushMessages"): _node_push,
    ("Fleet", "GetRun"): _get_run,
    ("Fleet", "GetFab"): _get_fab,
    ("Fleet", "PushObject"): _node_push_object,
    ("Fleet", "PullObject"): _node_pull_object,
    ("Fleet", "ConfirmMessageReceived"): _node_confirm,
    ("Fleet", "PullMessages"): _node_pull,
    ("Runtime", "PullPendingTasks"): _pending,
    ("Runtime", "ClaimTask"): _claim,
    ("Runtime", "AcquireTask"): _acquire,
    ("Runtime", "GetRun"): _superexec_get_run,
    ("Runtime", "SendTaskHeartbeat"): _about_itself("SendTaskHeartbeat"),
    ("Runtime", "PullTaskInput"): _about_itself("PullTaskInput"),
    ("Runtime", "PushObject"): _push_object,
    ("Runtime", "PullObject"): _pull_object,
    ("Runtime", "ConfirmMessageReceived"): _confirm,
    ("Runtime", "CreateTask"): _about_itself("CreateTask", type="flwr-model", model_ref="m"),
    ("Runtime", "StartAutomation"): _about_itself("StartAutomation"),
    ("Runtime", "PushTaskMessage"): _push_task_message,
    ("Runtime", "PushTaskEvents"): _push_events,
    ("Runtime", "PullTaskMessage"): _pull_task_message,
    ("Runtime", "GetRunSeriesEvents"): _about_itself("GetRunSeriesEvents"),
    ("Runtime", "GetCompactedContexts"): _about_itself("GetCompactedContexts"),
    ("Runtime", "PutCompactedContext"): _put_context,
    ("Runtime", "RecordTaskUsage"): _about_itself("RecordTaskUsage"),
    ("Runtime", "GetConnector"): _about_itself("GetConnector"),
    ("Runtime", "PushLogs"): _push_logs,
    ("Runtime", "PushMessages"): _push,
    ("Runtime", "PullMessages"): _pull,
    ("Runtime", "GetNodes"): _get_nodes,
    # Last, the calls that end the node or the task.
    ("Fleet", "UnregisterNode"): _unregister,
    ("Fleet", "ActivateNode"): _activate,
    ("Fleet", "DeactivateNode"): _deactivate,
    ("Runtime", "PushTaskOutput"): _about_itself("PushTaskOutput", sub_status="completed"),
}


async def _unproven(scene: Scene, api: str, name: str) -> Outcome:
    """Call in the name of another node or task, or like a SuperExec without the secret."""
    method, other = BY_NAME[(api, name)], scene.theirs[Whose.OTHER].node
    known = method.request.DESCRIPTOR.fields_by_name
    if method.caller is CallerKind.SUPEREXEC:
        await scene.superexec(name, method.request(), secret=b"another secret of 32 characters!")
    elif api == "Runtime":
        await scene.own.app.call(name, method.request(), token="made-up")
    else:
        said = {"public_key": other.public_key, "node_id": other.node_id, "node": other.node}
        fields = {key: value for key, value in said.items() if key in known}
        await scene.own.node.call(name, method.request(**fields))
    return YES


async def _outcome(scene: Scene, api: str, name: str, whose: Whose) -> Outcome:
    try:
        if whose is Whose.UNPROVEN:
            return await _unproven(scene, api, name)
        return await CASES[(api, name)](scene, scene.theirs[whose])
    except Refused as refused:
        expected = AGENT_RIGHTS[(api, name)][whose]
        if refused.code is None and isinstance(expected, ErrorCode):
            # Some refusals have no code over gRPC, and our own refusals never have one.
            spec = CATALOGUE[expected]
            is_this = refused.outcome is spec.outcome and refused.text.startswith(spec.message)
            return expected if is_this else refused.text
        return ErrorCode(refused.code) if refused.code else refused.text


async def test_each_call_reaches_what_the_table_says(scene: Scene) -> None:
    outcomes = {}
    for whose in (*reversed(Whose),):
        for api, name in CASES:
            if AGENT_RIGHTS[(api, name)][whose] is not None:
                outcomes[(api, name, whose.value)] = await _outcome(scene, api, name, whose)

    assert outcomes == {
        (api, name, whose.value): line[whose]
        for (api, name), line in AGENT_RIGHTS.items()
        for whose in Whose
        if line[whose] is not None
    }


def test_every_call_has_a_line_in_the_table() -> None:
    methods = {(method.api, method.name) for method in (*FLEET, *RUNTIME)}
    assert set(AGENT_RIGHTS) == methods
    assert set(CASES) == methods


NAMES = {"run_id", "task_id", "src_task_id", "message_ids", "message", "messages_list", "context"}
"""Fields with which a request may name things of others."""


def test_a_request_that_can_name_what_is_others_has_an_outcome_for_it() -> None:
    for (api, name), line in AGENT_RIGHTS.items():
        fields = set(BY_NAME[(api, name)].request.DESCRIPTOR.fields_by_name)
        says_nothing = all(line[one] is None for one in list(Whose)[2:])
        if says_nothing:
            assert not fields & NAMES or (name, api) in NAMES_ITS_OWN, name


NAMES_ITS_OWN = {("PushTaskOutput", "Runtime"), ("PullMessages", "Fleet")}
"""A context belongs to the task's series. SuperNodes name no messages; gateways ignore any."""
