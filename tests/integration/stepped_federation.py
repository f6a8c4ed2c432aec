"""A ServerApp, SuperNodes and two replicas of gateway and superlink, for the mailbox's state machine.

The replicas are the runtime's own services over a real broker. A table stands for PostgreSQL's rows
of nodes and runs. The clients behave like stock clients: they wait for the answer to a call, repeat
a failed call on any replica, and keep their state in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast

from flwr.app import ConfigRecord, Message, RecordDict
from google.protobuf.message import Message as ProtoMessage

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.hints import Wakes
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.pushers import Pushers
from flower_nats.broker.subjects import InstructionKey, ReplyKey
from flower_nats.model.caller import SUPERLINK_NODE_ID, Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.settings import StorageLimits
from flower_nats.superlink.housekeeping.messages import MessageHousekeeping
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.api.fleet import FleetService
from flower_nats_gateway.api.runtime import RuntimeService
from flower_nats_gateway.calls.call import Call, Drain
from flower_nats_gateway.calls.wire import GRPC
from flower_nats_gateway.cluster.presence import Presence
from flower_nats_gateway.delivery.lost_replies import LostReplies
from flower_nats_gateway.delivery.named_objects import NamedObjects
from flower_nats_gateway.delivery.objects import ObjectService
from flower_nats_gateway.delivery.push_sessions import PushSessions
from flower_nats_gateway.delivery.stored_bytes import StoredBytes
from harness.messages import Parcel, as_server_app, parcel
from tests.integration.crashing import Clock, SteppedConnection

M = TypeVar("M", bound=ProtoMessage)

RUN = 2**63 + 11
NODES = (2**64 - 21, 2**64 - 22, 2**64 - 23)
SHORT, LONG = 100.0, 100_000.0
"""Seconds for which a message is valid."""


# Messages. The same steps always make the same messages.


@cache
def _content(number: int, shared: int) -> RecordDict:
    """Content with a second object that all messages with the same `shared` have."""
    records = {"own": ConfigRecord({"number": number})}
    if shared:
        records["shared"] = ConfigRecord({"shared": shared})
    return RecordDict(records)


def make_instruction(node_id: int, number: int, shared: int, ttl: float, now: float) -> Parcel:
    as_server_app(RUN)
    message = Message(_content(number, shared), dst_node_id=node_id, message_type="train", ttl=ttl)
    message.metadata.__dict__["_created_at"] = now
    return parcel(message, RUN, SUPERLINK_NODE_ID)


def make_reply(to: Parcel, node_id: int, number: int, shared: int, now: float) -> Parcel:
    message = Message(_content(number, shared), reply_to=to.flwr)
    asked = to.flwr.metadata
    message.metadata.__dict__["_created_at"] = now
    message.metadata.__dict__["_ttl"] = asked.created_at + asked.ttl - now
    return parcel(message, RUN, node_id)


def expires(one: Parcel) -> float:
    return float(one.flwr.metadata.created_at + one.flwr.metadata.ttl)


# Replicas


class Metadata:
    """Stands for the rows in PostgreSQL."""

    def __init__(self) -> None:
        self.nodes = dict.fromkeys(NODES, "online")
        self.run = "running"

    async def reachable(self, pairs: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(run, node) for run, node in pairs if self.nodes[node] == "online"}

    async def run_statuses(self, ids: Sequence[int]) -> Mapping[int, str]:
        return {one: self.run for one in ids if one == RUN}

    async def is_heard(self) -> bool:
        return True

    # The questions of a gateway to identities and superlinks.

    async def require_running(self, run_id: int) -> None:
        if reason := await self.why_not_running(run_id):
            raise ApiError(ErrorCode.RUN_STATUS_NOT_ALLOWED, reason)

    async def why_not_running(self, run_id: int) -> str:
        return "" if self.run == "running" else f"run {run_id} is {self.run}"

    async def require_task(self, _token: bytes) -> None:
        if self.run != "running":
            raise ApiError(ErrorCode.AUTHENTICATION_FAILED, f"run {RUN} is {self.run}")

    async def look_up(self, method: str, **_arguments: Any) -> dict[str, list[int]]:
        assert method == "CheckNodes"
        return {"online": list(NODES), "offline": []}

    def traffic(self, run_id: int, **_amounts: Any) -> None:
        """Ignore traffic."""


class HeardWakes(Wakes):
    """Hints that arrive at once, or never."""

    async def hear(self, subject: str, payload: bytes) -> None:
        self._on_hint(subject, payload)


class Replica:
    """The parts of a gateway and a superlink for messages."""

    def __init__(self, connection: Connection, metadata: Metadata) -> None:
        self.metadata = metadata
        self.wakes = HeardWakes(connection)
        self.mailbox, objects = Mailbox(connection), Objects(connection)
        # A draining gateway holds no call.
        drain = Drain()
        drain.begin()
        stored_bytes = StoredBytes(self.mailbox, StorageLimits())
        push_sessions = PushSessions(self.mailbox, objects, stored_bytes)
        self._objects = ObjectService(objects, push_sessions, stored_bytes, self.wakes, drain)
        self.wakes.on_node_wake(self.mailbox.forget_node)
        self.wakes.on_run_event(self._objects.forget_run)
        self.wakes.on_object(push_sessions.note_object)
        self.wakes.on_session(push_sessions.note_out)
        known = cast(Any, metadata)
        self._fleet = FleetService(
            mailbox=self.mailbox,
            push_sessions=push_sessions,
            objects=self._objects,
            named_objects=NamedObjects(self.mailbox),
            directory=known,
            wakes=self.wakes,
            usage=known,
            presence=Presence(),
            forward=cast(Any, None),
            lost_replies=LostReplies(self.mailbox, ErrorReplies(self.mailbox, objects)),
            drain=drain,
        )
        self._runtime = RuntimeService(
            mailbox=self.mailbox,
            push_sessions=push_sessions,
            objects=self._objects,
            error_replies=ErrorReplies(self.mailbox, objects),
            log_intake=cast(Any, None),
            directory=known,
            wakes=self.wakes,
            rpc=known,
            forward=cast(Any, None),
            drain=drain,
        )
        self.housekeeping = MessageHousekeeping(
            self.mailbox,
            objects,
            metadata.reachable,
            metadata.run_statuses,
            metadata.is_heard,
            Pushers(),
        )

    async def call(
        self, node_id: int, method: str, request: ProtoMessage, answer: type[M], signed_at: float
    ) -> M:
        """Serve a call of a node, or of the ServerApp, which has the SuperLink's node id."""
        if node_id == SUPERLINK_NODE_ID:
            caller = Caller(task_id=1, run_id=RUN, task_type="flwr-serverapp", task_token=b"t")
            endpoint, service = self._runtime.endpoints()[method], "Runtime"
        else:
            caller = Caller(node_id=node_id, signed_at=signed_at)
            endpoint, service = self._fleet.endpoints()[method], "Fleet"
        call = Call(BY_NAME[(service, method)], {}, "test", GRPC, "", "")
        call.receive(request.SerializeToString())
        return answer.FromString(cast(bytes, await endpoint(call, caller)))

    async def read(self, object_id: str) -> bytes | None:
        """Return an object like a client would pull it, or None."""
        body = await self._objects.pull(RUN, object_id, broadcast=False)
        found = common.PullObjectResponse.FromString(cast(bytes, body))
        return found.object_content if found.object_available else None


# Clients


_moments = (float(moment) for moment in itertools.count(1))
"""The signing times of calls, by the callers' clocks."""


@dataclass(eq=False)
class Request:
    """A call for which a client wants an answer."""

    name: str
    serve: Callable[[Replica], Coroutine[Any, Any, Any]]
    answered: Callable[[Any], Awaitable[None]]


@dataclass(eq=False)
class Client:
    """A client with its waiting calls (new ones and repeated ones) and its calls under way."""

    node_id: int
    waiting: list[Request] = field(default_factory=list)
    under_way: set[Request] = field(default_factory=set)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.under_way)

    def lose(self, request: Request) -> None:
        """Repeat a call that was not answered, unless the client has forgotten it."""
        if request in self.under_way:
            self.under_way.discard(request)
            self.waiting.append(request)

    def forget(self) -> None:
        """Forget all calls."""
        self.waiting.clear()
        self.under_way.clear()

    def want(
        self,
        method: str,
        request: ProtoMessage,
        answer: type[M],
        answered: Callable[[M], Awaitable[None]],
        what: str = "",
    ) -> None:
        signed_at = next(_moments)

        def serve(replica: Replica) -> Coroutine[Any, Any, M]:
            return replica.call(self.node_id, method, request, answer, signed_at)

        self.waiting.append(Request(f"{method} of {self.node_id} {what}", serve, answered))

    def confirm_received(self, message_id: str, done: Callable[[], None]) -> None:
        async def answered(_answer: common.ConfirmMessageReceivedResponse) -> None:
            done()

        request = common.ConfirmMessageReceivedRequest(
            node=common.Node(node_id=self.node_id), run_id=RUN, message_object_id=message_id
        )
        self.want(
            "ConfirmMessageReceived", request, common.ConfirmMessageReceivedResponse, answered
        )

    def push_objects(
        self,
        session_id: str,
        contents: Mapping[str, bytes],
        done: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        left = set(contents)

        def push(object_id: str, content: bytes) -> None:
            async def answered(answer: common.PushObjectResponse) -> None:
                left.discard(object_id)
                if not answer.stored:
                    refused(object_id)
                elif not left:
                    done()

            request = common.PushObjectRequest(
                node=common.Node(node_id=self.node_id),
                run_id=RUN,
                object_id=object_id,
                object_content=content,
                session_id=session_id,
            )
            self.want("PushObject", request, common.PushObjectResponse, answered, object_id)

        for object_id, content in contents.items():
            push(object_id, content)
        if not contents:
            done()


class ServerApp(Client):
    """A ServerApp, which sends instructions and wants one outcome of each."""

    def __init__(self) -> None:
        super().__init__(SUPERLINK_NODE_ID)
        self.instructions: dict[str, Parcel] = {}
        """All instructions that it has begun to send, by id."""
        self.sent: set[str] = set()
        """Instructions with all objects pushed."""
        self.outcomes: dict[str, common.Metadata] = {}
        """The outcomes that it was told, by instruction."""
        self.confirming: set[str] = set()
        self.confirmed: set[str] = set()
        """Instructions with a confirmed outcome."""

    @property
    def waits_for(self) -> set[str]:
        return self.sent - self.confirmed

    def send(self, parcels: Sequence[Parcel]) -> None:
        self.instructions |= {one.message_id: one for one in parcels}
        objects = {key: value for one in parcels for key, value in one.objects.items()}
        ids = {one.message_id for one in parcels}

        def refused(object_id: str) -> None:
            raise AssertionError(f"the ServerApp was refused its object {object_id}")

        async def answered(answer: runtime.PushAppMessagesResponse) -> None:
            assert set(answer.message_ids) == ids
            contents = {one: objects[one] for one in answer.objects_to_push}
            self.push_objects(answer.session_id, contents, lambda: self.sent.update(ids), refused)

        request = runtime.PushAppMessagesRequest(
            messages_list=[one.proto for one in parcels],
            message_object_trees=[one.outgoing.tree for one in parcels],
        )
        self.want("PushMessages", request, runtime.PushAppMessagesResponse, answered)

    def pull(self, got: Callable[[common.Message], Awaitable[None]]) -> None:
        async def answered(answer: runtime.PullAppMessagesResponse) -> None:
            for message in answer.messages_list:
                await got(message)

        request = runtime.PullAppMessagesRequest(message_ids=sorted(self.waits_for))
        self.want("PullMessages", request, runtime.PullAppMessagesResponse, answered)

    def confirm(self, instruction_id: str) -> None:
        self.confirming.add(instruction_id)
        self.confirm_received(
            self.outcomes[instruction_id].message_id,
            lambda: self.confirmed.add(instruction_id),
        )


class SuperNode(Client):
    """A SuperNode, which has its unanswered instructions only in memory."""

    def __init__(self, node_id: int) -> None:
        super().__init__(node_id)
        self.alive = True
        self.pulling = False
        self.known: set[str] = set()
        """Instructions that it has confirmed."""
        self.work: dict[str, Parcel] = {}
        """Confirmed instructions that it has not begun to answer, by id."""
        self.answered: dict[str, Parcel] = {}
        """Replies that it has sent completely, by the id of their instruction."""
        self.refused: set[str] = set()
        """Instructions with a refused reply."""

    def pull(self, got: Callable[[common.Message], Awaitable[None]]) -> None:
        """Pull an instruction; the node pulls the next one after it has confirmed this one."""
        self.pulling = True

        async def answered(answer: fleet.PullMessagesResponse) -> None:
            self.pulling = False
            for message in answer.messages_list:
                await got(message)

        request = fleet.PullMessagesRequest(node=common.Node(node_id=self.node_id))
        self.want("PullMessages", request, fleet.PullMessagesResponse, answered)

    def confirm(self, instruction: Parcel) -> None:
        self.pulling = True

        def done() -> None:
            self.pulling = False
            self.known.add(instruction.message_id)
            self.work[instruction.message_id] = instruction

        self.confirm_received(instruction.message_id, done)

    def push_reply(self, one: Parcel, refused: Callable[[], None]) -> None:
        async def answered(answer: fleet.PushMessagesResponse) -> None:
            contents = {key: one.objects[key] for key in answer.objects_to_push}
            if not contents:
                refused()
                return
            self.push_objects(answer.session_id, contents, done, lambda _object: refused())

        def done() -> None:
            self.answered[one.outgoing.metadata.reply_to_message_id] = one

        request = fleet.PushMessagesRequest(
            node=common.Node(node_id=self.node_id),
            messages_list=[one.proto],
            message_object_trees=[one.outgoing.tree],
        )
        self.want("PushMessages", request, fleet.PushMessagesResponse, answered)

    def die(self) -> None:
        """Die, and lose all memory."""
        self.alive = self.pulling = False
        self.forget()
        self.work, self.answered = {}, {}
        self.known, self.refused = set(), set()

    def start(self) -> None:
        """Come back with the same key."""

        signed_at = next(_moments)

        async def activate(replica: Replica) -> None:
            replica.metadata.nodes[self.node_id] = "online"
            await replica.mailbox.reoffer(self.node_id, signed_at)

        async def answered(_answer: None) -> None:
            self.alive = True

        self.waiting.append(Request(f"ActivateNode of {self.node_id}", activate, answered))


# The broker's holdings


@dataclass(frozen=True)
class Holdings:
    """The run's messages and objects in the broker."""

    instructions: dict[str, list[InstructionKey]]
    replies: dict[str, list[ReplyKey]]
    subjects: list[str]
    objects: set[str]
    """Complete objects."""
    object_subjects: list[str]


async def holdings(connection: SteppedConnection) -> Holdings:
    """Return all that the broker holds of the run."""
    found = await connection.subjects(subjects.MESSAGES_STREAM, subjects.run(RUN))
    instructions: dict[str, list[InstructionKey]] = {}
    replies: dict[str, list[ReplyKey]] = {}
    for subject in found:
        key = subjects.parse(subject)
        if isinstance(key, InstructionKey):
            instructions.setdefault(key.message_id, []).append(key)
        elif isinstance(key, ReplyKey):
            replies.setdefault(key.instruction_id, []).append(key)
    chunks = await connection.subjects(subjects.OBJECTS_STREAM, subjects.objects(RUN))
    whole = {one.split(".")[3] for one in chunks if one.endswith(".head")}
    return Holdings(instructions, replies, found, whole, chunks)


async def forget_expired(connection: SteppedConnection, clock: Clock) -> None:
    """Drop expired instructions, which a broker does by itself."""
    for keys in (await holdings(connection)).instructions.values():
        for key in keys:
            found = await Mailbox(connection).find_instruction(RUN, key.node_id, key.message_id)
            if found is None:
                continue
            metadata = found.outgoing.metadata
            if metadata.created_at + metadata.ttl <= clock.time():
                await Mailbox(connection).end_instruction(RUN, key.message_id)
