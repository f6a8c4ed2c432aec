"""Replies that ServerApps have confirmed, which are dropped in the background.

A stock ServerApp confirms one reply after another and never pulls one again, so it need not wait
until the broker has dropped each. A confirmation that is lost with its gateway only costs storage
until the run ends.
"""

import asyncio

from flower_nats.broker.mailbox import Mailbox
from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable

log = get_logger(__name__)

_AT_ONCE = 8


class Acknowledgements:
    """Drops replies, several at once, and tries again while the broker is out of reach."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._pending: dict[tuple[int, str], asyncio.Task[None]] = {}

    def add(self, run_id: int, reply_id: str) -> None:
        """Drop a reply in the background."""
        key = (run_id, reply_id)
        if key not in self._pending:
            task = asyncio.create_task(self._forget(*key), name=f"confirm {reply_id}")
            self._pending[key] = task
            task.add_done_callback(lambda _: self._pending.pop(key))

    async def settle(self, timeout: float) -> None:
        """Wait until all are dropped, for at most `timeout` seconds."""
        if self._pending:
            await asyncio.wait(self._pending.values(), timeout=timeout)

    async def _forget(self, run_id: int, reply_id: str) -> None:
        async with self._places:
            while True:
                try:
                    await self._mailbox.confirm_reply(run_id, reply_id)
                except Unavailable as exc:
                    log.warning("confirmation_delayed", run_id=run_id, reason=exc.detail)
                else:
                    return
