"""Questions to superlinks, as somebody: answers are shared for a moment by all who look at the same."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgpack

from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.subjects import CONSOLE
from flower_nats.model.caller import Caller
from flower_nats.wire.methods import BY_NAME

PATIENCE = 8.0
"""Seconds for which a page waits for a superlink: as long as another one needs to take over."""

_SHARED = 0.9
"""Seconds for which an answer is given again: ten browsers cost what one costs."""

_MOST_SHARED = 256
"""Answers that are kept for that."""

Answer = Mapping[str, Any]


class Superlinks:
    """Asks superlinks."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc
        self._answers: dict[bytes, tuple[float, asyncio.Task[Answer]]] = {}

    async def ask(self, question: str, caller: Caller, **parameters: Any) -> Answer:
        """Return the answer to a question that changes nothing.

        Raises `ApiError` if it is refused, and `Unavailable` if no superlink answers.
        """
        body = bytes(msgpack.packb(parameters))
        key = bytes(msgpack.packb((question, caller.account_token, body)))
        now = time.monotonic()
        asked_at, answering = self._answers.get(key, (0.0, None))
        if answering is None or (answering.done() and now - asked_at > _SHARED):
            self._forget(now)
            answering = asyncio.create_task(self._ask(question, body, caller), name=question)
            self._answers[key] = (now, answering)
        # Others may wait for the same answer: a browser that goes away must not end it.
        return await asyncio.shield(answering)

    async def _ask(self, question: str, body: bytes, caller: Caller) -> Answer:
        answer = await self._rpc.call(CONSOLE, question, body, caller, patience=PATIENCE)
        found: Answer = msgpack.unpackb(answer, strict_map_key=False)
        return found

    def _forget(self, now: float) -> None:
        old = [
            key
            for key, (asked_at, answering) in self._answers.items()
            if answering.done() and now - asked_at > _SHARED
        ]
        for key in old:
            answering = self._answers.pop(key)[1]
            if not answering.cancelled():
                # The pages that waited for it got the error.
                answering.exception()
        while len(self._answers) >= _MOST_SHARED:
            self._answers.pop(next(iter(self._answers)))

    async def change(self, question: str, caller: Caller, **parameters: Any) -> Answer:
        """Have something changed, and return the answer. Raises `ApiError`."""
        answer = await self._ask(question, bytes(msgpack.packb(parameters)), caller)
        self._answers.clear()
        return answer

    async def stop_run(self, run_id: int, caller: Caller) -> None:
        """Stop a run as `flwr stop` does. Raises `ApiError`."""
        method = BY_NAME[("Control", "StopRun")]
        body = method.request(run_id=run_id).SerializeToString()
        await self._rpc.call("Control", "StopRun", body, caller, patience=PATIENCE)
        self._answers.clear()
