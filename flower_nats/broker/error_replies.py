"""Replies that the SuperLink itself gives when no node will."""

from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.wire import common_pb2 as common
from flower_nats.wire.messages import MessageError, Outgoing, error_reply


class ErrorReplies:
    """Gives error replies by the same door as real ones, so that an instruction gets one of either."""

    def __init__(self, mailbox: Mailbox, objects: Objects) -> None:
        self._mailbox = mailbox
        self._objects = objects

    async def give(
        self,
        run_id: int,
        instruction_id: str,
        code: MessageError,
        instruction: common.Metadata | None = None,
    ) -> Outgoing | None:
        """End an instruction with an error reply; return None if it had its reply already."""
        outgoing, content = error_reply(code, instruction_id, instruction)
        # The session keeps the object from being collected, so it comes first.
        session_id = await self._mailbox.open_session(run_id, [outgoing])
        await self._objects.put(run_id, outgoing.metadata.message_id, content, session_id)
        # An id that nobody knows may have been answered and confirmed before: asking again must
        # get an answer all the same.
        first = code is MessageError.NODE_UNAVAILABLE
        accepted = await self._mailbox.accept_reply(run_id, session_id, outgoing, remembered=first)
        return outgoing if accepted else None
