"""The Fleet API's mailbox and object work: what SuperNodes call all the time."""

import time

from flower_nats.broker import subjects
from flower_nats.broker.exchange_notes import NOWHERE, ExchangeNotes
from flower_nats.broker.hints import Wakes
from flower_nats.broker.in_flight import Instruction
from flower_nats.broker.mailbox import Mailbox
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.states import MAX_HEARTBEAT_INTERVAL, MIN_HEARTBEAT_INTERVAL
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.messages import (
    TTL_TOLERANCE,
    Outgoing,
    check_head,
    check_message_id,
    check_tree,
    expires_at,
    is_object_id,
    malformed,
)
from flower_nats_gateway.api.forwarding import Forwarder
from flower_nats_gateway.api.service import Endpoint
from flower_nats_gateway.calls.answers import Answer
from flower_nats_gateway.calls.call import Call, Drain
from flower_nats_gateway.calls.registrations import RegistrationLimit
from flower_nats_gateway.cluster.directory import Directory, shut_out
from flower_nats_gateway.cluster.presence import Presence
from flower_nats_gateway.cluster.usage import Usage
from flower_nats_gateway.delivery.lost_replies import LostReplies
from flower_nats_gateway.delivery.named_objects import NamedObjects
from flower_nats_gateway.delivery.objects import NOT_FOUND, ObjectService
from flower_nats_gateway.delivery.push_sessions import PushSessions
from flower_nats_gateway.delivery.stored_bytes import StorageLimit

log = get_logger(__name__)


class FleetService:
    """Serves SuperNodes."""

    def __init__(
        self,
        *,
        mailbox: Mailbox,
        push_sessions: PushSessions,
        objects: ObjectService,
        named_objects: NamedObjects,
        directory: Directory,
        wakes: Wakes,
        usage: Usage,
        presence: Presence,
        forward: Forwarder,
        lost_replies: LostReplies,
        drain: Drain,
        notes: ExchangeNotes = NOWHERE,
    ) -> None:
        self._mailbox = mailbox
        self._push_sessions = push_sessions
        self._objects = objects
        self._named_objects = named_objects
        self._lost_replies = lost_replies
        self._directory = directory
        self._wakes = wakes
        self._usage = usage
        self._notes = notes
        self._presence = presence
        self._forward = forward
        self._registrations = RegistrationLimit()
        self._drain = drain

    def endpoints(self) -> dict[str, Endpoint]:
        """Return what this service serves, by method name."""
        return {
            "RegisterNode": self.register_node,
            "SendNodeHeartbeat": self.send_node_heartbeat,
            "PullMessages": self.pull_messages,
            "PushMessages": self.push_messages,
            "PullObject": self.pull_object,
            "PushObject": self.push_object,
            "ConfirmMessageReceived": self.confirm_message_received,
        }

    async def register_node(self, call: Call, caller: Caller) -> bytes:
        """Forward a registration to a superlink, unless the address has made too many."""
        self._registrations.check(call.host)
        return await self._forward(call, caller)

    async def send_node_heartbeat(self, call: Call, caller: Caller) -> bytes:
        """Note that the node is alive. Authentication has checked that it is known."""
        request = call.parse(fleet.SendNodeHeartbeatRequest)
        interval = request.heartbeat_interval
        if not MIN_HEARTBEAT_INTERVAL <= interval <= MAX_HEARTBEAT_INTERVAL:
            raise ApiError(ErrorCode.INVALID_HEARTBEAT_INTERVAL, f"{interval} s")
        came_at = time.time() - (time.monotonic() - call.began_at)
        self._usage.beat(_node(caller), interval, caller.signed_at - came_at)
        return fleet.SendNodeHeartbeatResponse(success=True).SerializeToString()

    async def pull_messages(self, call: Call, caller: Caller) -> bytes:
        """Return the node's next instruction; hold the call until there is one."""
        with self._presence.asking(_node(caller)):
            instruction = await self._await_instruction(call, caller)
        response = fleet.PullMessagesResponse()
        if instruction is None:
            return response.SerializeToString()
        self._named_objects.note(instruction)
        outgoing = instruction.outgoing
        response.messages_list.add().ParseFromString(outgoing.message)
        response.message_object_trees.append(outgoing.tree)
        body = response.SerializeToString()
        key = instruction.key
        self._usage.traffic(key.run_id, sent=len(body), received=call.size)
        self._notes.traffic(key.run_id, key.message_id, sent=len(body))
        return body

    async def _await_instruction(self, call: Call, caller: Caller) -> Instruction | None:
        node_id = _node(caller)
        deadline = time.monotonic() + call.wire.longest_hold
        with self._wakes.on(subjects.wake_node(node_id), subjects.event_node(node_id)) as wait:
            while True:
                wait.take()
                found = await self._mailbox.next_instruction(node_id)
                left = deadline - time.monotonic()
                if found is not None or self._drain.begun or left <= 0:
                    return found
                if not await wait.wait(left):
                    return None
                node = await self._directory.node(caller.public_key or b"")
                if node is None or node.has_left or node.node_id != node_id:
                    # This makes the node's process end.
                    raise shut_out(node_id)

    async def push_messages(self, call: Call, caller: Caller) -> bytes:
        """Accept a node's reply, which counts once its objects have arrived."""
        request = call.parse(fleet.PushMessagesRequest)
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise malformed("PushMessages takes one message and its object tree")
        message, tree = request.messages_list[0], request.message_object_trees[0]
        try:
            response = await self._take_in(message, tree, caller)
        except ApiError as exc:
            if exc.code is ErrorCode.MALFORMED_REQUEST:
                await self._end_lost(message.metadata, caller, exc.detail)
            raise
        body, run_id = response.SerializeToString(), message.metadata.run_id
        if response.session_id:
            runtime = sum(request.clientapp_runtime_list[:1])
            self._usage.traffic(run_id, sent=len(body), received=call.size, runtime=runtime)
        return body

    async def _take_in(
        self, message: common.Message, tree: bytes, caller: Caller
    ) -> fleet.PushMessagesResponse:
        check_head(message, is_reply=True)
        metadata = message.metadata
        if metadata.src_node_id != caller.node_id:
            raise malformed(f"`src_node_id` must be {caller.node_id}, the node that sends")
        await self._directory.require_running(metadata.run_id)
        response = fleet.PushMessagesResponse(results={metadata.message_id: 0})
        refusal = await self._refusal(metadata)
        if refusal:
            # No error is returned: the node's work is done, and trying again would not help.
            log.info("reply_refused", **_facts(metadata), reason=refusal)
            await self._end_lost(metadata, caller, refusal)
            return response
        check_tree(message, tree)
        outgoing = Outgoing(message.SerializeToString(), tree)
        try:
            view = await self._push_sessions.open(metadata.run_id, [outgoing])
        except StorageLimit as exc:
            log.warning("reply_refused", **_facts(metadata), reason=exc.detail)
            await self._end_lost(metadata, caller, exc.detail)
            return response
        response.session_id = view.session_id
        response.objects_to_push.extend(outgoing.object_ids)
        return response

    async def _end_lost(self, reply: common.Metadata, caller: Caller, reason: str) -> bool:
        """End the instruction of a refused reply, if the instruction is for this node."""
        return await self._lost_replies.end(
            reply.run_id, _node(caller), reply.reply_to_message_id, reason
        )

    async def _refusal(self, reply: common.Metadata) -> str:
        instruction = await self._mailbox.recall_instruction(
            reply.run_id, reply.src_node_id, reply.reply_to_message_id
        )
        if instruction is None:
            return "no instruction for this node awaits this reply"
        if expires_at(reply) - expires_at(instruction.outgoing.metadata) > TTL_TOLERANCE:
            return "the reply would outlive its instruction"
        return ""

    async def pull_object(self, call: Call, caller: Caller) -> Answer:
        """Return an object of an instruction to this node; other objects count as missing."""
        request = call.parse(common.PullObjectRequest)
        await self._directory.require_running(request.run_id, ErrorCode.INSTRUCTION_WITHDRAWN)
        if not is_object_id(request.object_id) or not await self._named_objects.names(
            request.run_id, _node(caller), request.object_id
        ):
            return NOT_FOUND
        body = await self._objects.pull(request.run_id, request.object_id, broadcast=True)
        self._usage.traffic(request.run_id, sent=len(body))
        named_by = self._named_objects.named_by(request.run_id, _node(caller))
        self._notes.traffic(request.run_id, named_by, sent=len(body))
        return body

    async def push_object(self, call: Call, caller: Caller) -> bytes:
        """Store an object of a reply."""
        request = call.parse(common.PushObjectRequest)
        await self._directory.require_running(request.run_id)
        stored = await self._store(request, call, caller)
        if stored:
            self._usage.traffic(request.run_id, received=len(call.content))
        return common.PushObjectResponse(stored=stored).SerializeToString()

    async def _store(self, request: common.PushObjectRequest, call: Call, caller: Caller) -> bool:
        try:
            stored = await self._objects.push(request, call.content, sender=_node(caller))
        except ApiError as exc:
            if not isinstance(exc, StorageLimit) and exc.code is not ErrorCode.MALFORMED_REQUEST:
                raise
            # Stock gives the same answer. The SuperNode then drops the reply.
            log.warning("object_refused", node_id=caller.node_id, reason=exc.detail)
            session = await self._objects.session_of(request, sender=_node(caller))
            if session is not None and await self._end_lost(
                session.messages[0].metadata, caller, exc.detail
            ):
                await self._mailbox.close_session(request.run_id, session.session_id)
            return False
        if stored is not None:
            return stored
        # A node that owes no reply repeats a push of a completed session. Otherwise the object is
        # refused: nodes must not learn which other objects are stored.
        return not await self._mailbox.owes_reply(request.run_id, _node(caller))

    async def confirm_message_received(self, call: Call, caller: Caller) -> bytes:
        """Note that the node has the instruction and all its objects.

        If the run has ended, nothing is noted and no error is returned. The ClientApp may already
        be at work. After a refusal, a stock SuperNode would not wait for its reply, would send this
        reply in place of the next, and would stay one reply behind. It learns of the end when it
        sends the reply.
        """
        request = call.parse(common.ConfirmMessageReceivedRequest)
        check_message_id(request.message_object_id)
        if not await self._directory.why_not_running(request.run_id):
            await self._mailbox.take(
                request.run_id, _node(caller), request.message_object_id, caller.signed_at
            )
        return common.ConfirmMessageReceivedResponse().SerializeToString()


def _node(caller: Caller) -> int:
    if caller.node_id is None:
        raise ApiError(ErrorCode.INVALID_NODE_ID, "not called by a node")
    return caller.node_id


def _facts(metadata: common.Metadata) -> dict[str, object]:
    return {
        "run_id": metadata.run_id,
        "node_id": metadata.src_node_id,
        "instruction_id": metadata.reply_to_message_id,
    }
