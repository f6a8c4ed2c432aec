"""Error replies that the SuperLink itself gives if no node will reply."""

from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.subjects import ReplyKey
from flower_nats.wire import common_pb2 as common
from flower_nats.wire.messages import MessageError, Outgoing, error_reply


class ErrorReplies:
    """Stores error replies in the same way as nodes' replies: an instruction gets one of either."""

    def __init__(self, mailbox: Mailbox, objects: Objects) -> None:
        self._mailbox = mailbox
        self._objects = objects

    async def end(self, run_id: int, instruction: common.Metadata) -> Outgoing | None:
        """End an instruction if its node is gone; return None if it already had its reply."""
        return await self._end(run_id, instruction, MessageError.NODE_UNAVAILABLE)

    async def end_lost(
        self, run_id: int, instruction: common.Metadata, reason: str
    ) -> Outgoing | None:
        """End an instruction if its reply will not come; return None if it already had one."""
        text = f"Reply unavailable: {reason}"
        return await self._end(run_id, instruction, MessageError.REPLY_UNAVAILABLE, text)

    async def _end(
        self, run_id: int, instruction: common.Metadata, code: MessageError, reason: str = ""
    ) -> Outgoing | None:
        outgoing, session_id = await self._prepare(
            run_id, code, instruction.message_id, instruction, reason
        )
        accepted = await self._mailbox.accept_reply(run_id, session_id, outgoing)
        return outgoing if accepted else None

    async def replace(self, reply: ReplyKey) -> Outgoing | None:
        """Replace an expired reply by an error; return None if another process already did."""
        outgoing, session_id = await self._prepare(
            reply.run_id, MessageError.REPLY_UNAVAILABLE, reply.instruction_id
        )
        replaced = await self._mailbox.replace_reply(reply, session_id, outgoing)
        return outgoing if replaced else None

    async def unknown(self, run_id: int, instruction_id: str) -> Outgoing:
        """Return the answer about an unknown instruction, for one caller only.

        It is not stored as a reply: the id may belong to an instruction that is over.
        """
        outgoing, content = error_reply(MessageError.MESSAGE_UNAVAILABLE, run_id, instruction_id)
        # The caller reads it at once; housekeeping collects it soon.
        await self._objects.put(run_id, outgoing.metadata.message_id, content)
        return outgoing

    async def _prepare(
        self,
        run_id: int,
        code: MessageError,
        instruction_id: str,
        instruction: common.Metadata | None = None,
        reason: str = "",
    ) -> tuple[Outgoing, str]:
        outgoing, content = error_reply(code, run_id, instruction_id, instruction, reason)
        # The session comes first, because it keeps the object from being collected.
        session_id = await self._mailbox.open_session(run_id, [outgoing])
        await self._objects.put(run_id, outgoing.metadata.message_id, content, session_id)
        return outgoing, session_id
