"""Replies that were refused: a stock SuperNode drops such a one and goes on.

So nobody would answer their instructions any more. They get an error reply at once.
"""

from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.mailbox import Mailbox
from flower_nats.logs import get_logger
from flower_nats.wire.messages import is_object_id

log = get_logger(__name__)


class LostReplies:
    """Answers in the place of nodes whose replies were refused."""

    def __init__(self, mailbox: Mailbox, error_replies: ErrorReplies) -> None:
        self._mailbox = mailbox
        self._error_replies = error_replies

    async def end(self, run_id: int, node_id: int, instruction_id: str, reason: str) -> bool:
        """End an instruction of a node, if it has one of this id; return whether it is ended by that.

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
