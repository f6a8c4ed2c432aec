"""The Runtime API's mailbox, object and log work: frequent calls of ServerApp processes."""

import asyncio
import time
from dataclasses import replace

from flower_nats.broker import subjects
from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.hints import Wait, Wakes
from flower_nats.broker.in_flight import InFlight
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.subjects import ReplyKey
from flower_nats.logs import get_logger
from flower_nats.model.caller import SUPERLINK_NODE_ID, Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.ids import token_for, token_for_any, token_hash
from flower_nats.model.task import USES_GRID
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.messages import (
    Outgoing,
    check_message,
    check_message_id,
    expired,
    malformed,
)
from flower_nats_gateway.api.forwarding import Forwarder
from flower_nats_gateway.api.service import Endpoint
from flower_nats_gateway.calls.answers import Answer
from flower_nats_gateway.calls.call import Call, Drain
from flower_nats_gateway.cluster.directory import Directory
from flower_nats_gateway.delivery.acknowledgements import Acknowledgements
from flower_nats_gateway.delivery.objects import NOT_FOUND, ObjectService
from flower_nats_gateway.delivery.push_sessions import PushSessions
from flower_nats_gateway.runlog.intake import LogIntake

log = get_logger(__name__)

HOLD = 10.0
"""Seconds for which PullMessages waits for replies. An app's own time-out is late by this at
most."""

SETTLE = 2.0
"""Seconds without a further reply after which the answer is given: a stock ServerApp sleeps 3 s
after an incomplete answer, so a quick answer would cost more time than it saves."""

TASKS_HOLD = 20.0
"""Seconds for which a SuperExec waits for a task."""

Found = dict[str, ReplyKey | None]
"""Replies by instruction; None for an unknown instruction."""


class RuntimeService:
    """Serves ServerApp processes and SuperExecs."""

    def __init__(
        self,
        *,
        mailbox: Mailbox,
        push_sessions: PushSessions,
        objects: ObjectService,
        error_replies: ErrorReplies,
        log_intake: LogIntake,
        directory: Directory,
        wakes: Wakes,
        rpc: RpcClient,
        forward: Forwarder,
        drain: Drain,
    ) -> None:
        self._mailbox = mailbox
        self._push_sessions = push_sessions
        self._objects = objects
        self._error_replies = error_replies
        self._acknowledgements = Acknowledgements(mailbox)
        self._log_intake = log_intake
        self._directory = directory
        self._wakes = wakes
        self._rpc = rpc
        self._forward = forward
        self._drain = drain

    def endpoints(self) -> dict[str, Endpoint]:
        """Return what this service serves, by method name."""
        return {
            "PullPendingTasks": self.await_task,
            "ClaimTask": self.claim_task,
            "AcquireTask": self.acquire_task,
            "PushLogs": self.push_logs,
            "PushMessages": self.push_messages,
            "PullMessages": self.pull_messages,
            "PushObject": self.push_object,
            "PullObject": self.pull_object,
            "ConfirmMessageReceived": self.confirm_message_received,
        }

    async def settle(self, timeout: float) -> None:
        """Finish work that goes on after answers, for at most `timeout` seconds."""
        await self._acknowledgements.settle(timeout)

    async def claim_task(self, call: Call, caller: Caller) -> bytes:
        """Claim a task by the hash of a token, and give the token only to the caller."""
        request = call.parse(runtime.ClaimTaskRequest)
        token = token_for(call.request_id, request.task_id)
        claiming = replace(caller, new_task_token=token_hash(token))
        response = runtime.ClaimTaskResponse.FromString(await self._forward(call, claiming))
        if response.token:
            response.token = token
        return response.SerializeToString()

    async def acquire_task(self, call: Call, caller: Caller) -> bytes:
        """Claim any pending task in the same way; hold the call until there is one."""
        token = token_for_any(call.request_id)
        claiming = replace(caller, new_task_token=token_hash(token))
        response = runtime.AcquireTaskResponse.FromString(await self.await_task(call, claiming))
        if response.token:
            response.token = token
        return response.SerializeToString()

    async def await_task(self, call: Call, caller: Caller) -> bytes:
        """Return the pending tasks, or the acquired one; hold the call until there is one."""
        deadline = time.monotonic() + TASKS_HOLD
        with self._wakes.on(subjects.WAKE_TASKS) as wait:
            while True:
                wait.take()
                body = await self._forward(call, caller)
                left = deadline - time.monotonic()
                # A response without a task has no bytes.
                if body or self._drain.begun or left <= 0 or not await wait.wait(left):
                    return body

    async def push_logs(self, call: Call, caller: Caller) -> bytes:
        """Add lines to the log of the task's run."""
        request = call.parse(runtime.PushLogsRequest)
        text = "".join(request.logs)
        if text and caller.run_id is not None:
            await self._log_intake.append(call, caller, text)
        return runtime.PushLogsResponse().SerializeToString()

    async def push_messages(self, call: Call, caller: Caller) -> bytes:
        """Accept instructions. Each goes to its node once its objects have arrived."""
        run_id = _run_of(caller)
        request = call.parse(runtime.PushAppMessagesRequest)
        outgoing = await _instructions(request, run_id)
        known = await self._known_nodes(run_id, [one.metadata.dst_node_id for one in outgoing])
        accepted = [one for one in outgoing if one.metadata.dst_node_id in known]
        response = runtime.PushAppMessagesResponse()
        for one in outgoing:
            metadata = one.metadata
            is_known = metadata.dst_node_id in known
            response.message_ids.append(metadata.message_id if is_known else "")
            if not is_known:
                log.warning("instruction_refused", run_id=run_id, node_id=metadata.dst_node_id)
        if accepted:
            view = await self._push_sessions.open(run_id, accepted)
            response.session_id = view.session_id
            response.objects_to_push.extend(view.object_ids)
        return response.SerializeToString()

    async def _known_nodes(self, run_id: int, node_ids: list[int]) -> set[int]:
        answer = await self._rpc.look_up(
            "CheckNodes", run_id=run_id, node_ids=sorted(set(node_ids))
        )
        return {*answer["online"], *answer["offline"]}

    async def pull_messages(self, call: Call, caller: Caller) -> bytes:
        """Return replies; hold the call until all wanted replies are there or no more come."""
        run_id = _run_of(caller)
        wanted = set(call.parse(runtime.PullAppMessagesRequest).message_ids)
        if not wanted:
            # An agent pulls its prompt this way. A superlink has it.
            return await self._forward(call, caller)
        response = runtime.PullAppMessagesResponse()
        found = await self._await_replies(run_id, wanted, caller)
        answers = (self._answer(run_id, one, reply) for one, reply in found.items())
        for outgoing in await asyncio.gather(*answers):
            if outgoing is not None:
                response.messages_list.add().ParseFromString(outgoing.message)
                response.message_object_trees.append(outgoing.tree)
        return response.SerializeToString()

    async def _answer(
        self, run_id: int, instruction_id: str, reply: ReplyKey | None
    ) -> Outgoing | None:
        """Return the reply, an error in its place, or None if it is gone."""
        if reply is None:
            return await self._error_replies.unknown(run_id, instruction_id)
        outgoing = await self._mailbox.read_reply(reply)
        if outgoing is None or not _outlived(outgoing.metadata):
            return outgoing
        return await self._error_replies.replace(reply)

    async def _await_replies(self, run_id: int, wanted: set[str], caller: Caller) -> Found:
        found: Found = {}
        deadline = time.monotonic() + HOLD
        with self._wakes.on(subjects.wake_run(run_id), subjects.event_run(run_id)) as wait:
            await self._look(run_id, wanted, found, caller)
            while len(found) < len(wanted) and not self._drain.begun:
                left = deadline - time.monotonic()
                if left <= 0 or not await wait.wait(min(left, SETTLE) if found else left):
                    break
                await self._hear(run_id, wanted, found, wait, caller)
        return found

    async def _hear(
        self,
        run_id: int,
        wanted: set[str],
        found: Found,
        wait: Wait,
        caller: Caller,
    ) -> None:
        """Note the replies from hints; look at everything if hints may be missing."""
        lost = wait.lost
        for payload in wait.take():
            key = subjects.parse(payload.decode()) if payload else None
            if isinstance(key, ReplyKey):
                if key.instruction_id in wanted:
                    found[key.instruction_id] = key
            elif await self._directory.task(caller.task_token) is None:
                # The run has ended while its ServerApp still works. This error makes the process
                # end too.
                raise ApiError(ErrorCode.AUTHENTICATION_FAILED, f"run {run_id} has ended")
        if lost:
            await self._look(run_id, wanted, found, caller)

    async def _look(self, run_id: int, wanted: set[str], found: Found, caller: Caller) -> None:
        """Find the replies that are there, and the unknown instructions."""
        flight = (await self._mailbox.in_flight(run_id)).get(run_id, InFlight())
        for instruction_id in wanted - found.keys():
            reply = flight.replies.get(instruction_id)
            if reply is None:
                continue
            found[instruction_id] = reply
            if instruction_id in flight.instructions:
                # The gateway that accepted the reply died before it removed the instruction.
                # Without the removal, the reply could be stored again.
                await self._mailbox.end_instruction(run_id, instruction_id)
        unknown = wanted - found.keys() - flight.instructions.keys()
        if unknown:
            unknown = await self._unknown(run_id, unknown, flight)
        if unknown:
            await self._directory.require_task(caller.task_token)
            found.update(dict.fromkeys(unknown))

    async def _unknown(self, run_id: int, unknown: set[str], flight: InFlight) -> set[str]:
        """Return which of the apparently unknown instructions are really unknown."""
        for session_id in flight.unfinished_sessions:
            session = await self._mailbox.load_session(run_id, session_id)
            for one in session.outgoing if session else ():
                unknown.discard(one.metadata.message_id)
        # Instructions that were released or answered since the look are known.
        again = (await self._mailbox.in_flight(run_id)).get(run_id, InFlight())
        return unknown - again.instructions.keys() - again.replies.keys()

    async def push_object(self, call: Call, caller: Caller) -> bytes:
        """Store an object of the instructions."""
        request = call.parse(common.PushObjectRequest)
        request.run_id = _run_of(caller)
        _check_node(request.node)
        stored = await self._objects.push(request, call.content, sender=SUPERLINK_NODE_ID)
        if stored is None:
            # A late repetition: the first try may have completed the session, which is then over.
            stored = await self._objects.is_stored(request.run_id, request.object_id)
        if not stored:
            await self._directory.require_task(caller.task_token)
        return common.PushObjectResponse(stored=stored).SerializeToString()

    async def pull_object(self, call: Call, caller: Caller) -> Answer:
        """Return an object of a reply."""
        request = call.parse(common.PullObjectRequest)
        _check_node(request.node)
        body = await self._objects.pull(_run_of(caller), request.object_id, broadcast=False)
        if body == NOT_FOUND:
            await self._directory.require_task(caller.task_token)
        return body

    async def confirm_message_received(self, call: Call, caller: Caller) -> bytes:
        """Drop a reply, because the ServerApp has it and all its objects."""
        request = call.parse(common.ConfirmMessageReceivedRequest)
        run_id = _run_of(caller)
        check_message_id(request.message_object_id)
        self._acknowledgements.add(run_id, request.message_object_id)
        return common.ConfirmMessageReceivedResponse().SerializeToString()


async def _instructions(request: runtime.PushAppMessagesRequest, run_id: int) -> list[Outgoing]:
    messages, trees = request.messages_list, request.message_object_trees
    if not messages or len(messages) != len(trees):
        raise malformed("PushMessages takes at least one message, and an object tree for each")
    outgoing = []
    for message, tree in zip(messages, trees, strict=True):
        check_message(message, tree, is_reply=False)
        if message.metadata.run_id != run_id:
            raise malformed(f"`run_id` must be {run_id}, the run of this ServerApp")
        outgoing.append(Outgoing(message.SerializeToString(), tree))
        # A round of many large trees takes seconds. Other calls are served in between.
        await asyncio.sleep(0)
    return outgoing


def _outlived(metadata: common.Metadata) -> bool:
    """Whether a node's reply expired before it was pulled. Our own error replies never expire."""
    return metadata.src_node_id != SUPERLINK_NODE_ID and expired(metadata)


def _run_of(caller: Caller) -> int:
    if caller.task_type not in USES_GRID or caller.run_id is None:
        raise ApiError(ErrorCode.ENDPOINT_UNAVAILABLE, f"task type {caller.task_type}")
    return caller.run_id


def _check_node(node: common.Node) -> None:
    if node.node_id != SUPERLINK_NODE_ID:
        raise ApiError(ErrorCode.UNEXPECTED_NODE_ID, f"node {node.node_id}")
