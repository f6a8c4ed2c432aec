"""Refused replies: a stock SuperNode drops such a reply and goes on.

So no reply to their instructions would come. These instructions get an error reply at once.
"""

from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.mailbox import Mailbox
from flower_nats.logs import get_logger
from flower_nats.wire.messages import is_object_id

log = get_logger(__name__)


class LostReplies:
    """Gives error replies in place of refused replies."""

    def __init__(self, mailbox: Mailbox, error_replies: ErrorReplies) -> None:
        self._mailbox = mailbox
        self._error_replies = error_replies

    async def end(self, run_id: int, node_id: int, instruction_id: str, reason: str) -> bool:
        """End a node's instruction with this id, if there is one; return whether this ended it.

        `reason` is for the ServerApp.
        """
        if not is_object_id(instruction_id):
            return False
        found = await self._mailbox.find_instruction(run_id, node_id, instruction_id)
        if found is None:
            return False
        ended = await self._error_replies.end_lost(
            run_id, found.outgoing.metadata, f"the SuperLink refused it: {reason}"
        )
        if ended is None:
            return False
        log.warning(
            "reply_lost",
            run_id=run_id,
            node_id=node_id,
            instruction_id=instruction_id,
            reason=reason,
        )
        return True
