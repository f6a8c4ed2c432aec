"""Forwards all other calls: the unchanged request to a superlink, the unchanged answer back."""

import asyncio
from dataclasses import replace

from flower_nats.broker.connection import PATIENCE
from flower_nats.broker.rpc import RpcClient
from flower_nats.logs import get_logger
from flower_nats.model.caller import ASKED_FOR, Caller
from flower_nats.model.errors import ApiError
from flower_nats_gateway.api.service import Endpoint
from flower_nats_gateway.auth.accounts import REFUSED, Renewal
from flower_nats_gateway.calls.answers import Answer
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.runlog.pending import PendingLines

log = get_logger(__name__)


class Forwarder:
    """Serves an RPC by having a superlink serve it.

    A call that stock tries only once (`Method.tried_once`) is completed once it has arrived, even
    if the caller's connection ends. Without that, a lost output of a task would make a finished
    training fail a minute later.
    """

    def __init__(self, rpc: RpcClient, pending_lines: PendingLines, gateway: str) -> None:
        self._rpc = rpc
        self._pending_lines = pending_lines
        self._gateway = gateway
        self._kept: set[asyncio.Task[bytes]] = set()

    async def __call__(self, call: Call, caller: Caller) -> bytes:
        """Forward one call."""
        caller = replace(
            caller,
            # The token of a claimed task is derived from this id.
            request_id="" if caller.new_task_token else call.request_id,
            gateway=self._gateway,
            client_version=call.client_version,
            client_name=call.client_name,
            address=call.client_address,
        )
        if not call.method.tried_once:
            return await self._ask(call, caller, PATIENCE)
        task = asyncio.create_task(self._end(call, caller), name=call.method.name)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell)
            raise

    async def settle(self, timeout: float) -> None:
        """Finish calls that go on without their caller, for at most `timeout` seconds."""
        if self._kept:
            await asyncio.wait(self._kept, timeout=timeout)

    async def _end(self, call: Call, caller: Caller) -> bytes:
        if caller.run_id is not None:
            await self._pending_lines.until_no_more(caller.run_id)
        return await self._ask(call, caller, ASKED_FOR)

    async def _ask(self, call: Call, caller: Caller, patience: float) -> bytes:
        service, name = call.method.api, call.method.name
        return await self._rpc.call(service, name, call.body, caller, patience=patience)


def with_renewal(forward: Endpoint, renewal: Renewal) -> Endpoint:
    """Repeat a call if its caller's token has expired and can be renewed."""

    async def serve(call: Call, caller: Caller) -> Answer:
        try:
            return await forward(call, caller)
        except ApiError as exc:
            renewed = await renewal.renew(call, caller) if exc.code is REFUSED else None
            if renewed is None:
                raise
            return await forward(call, renewed)

    return serve


def _tell(task: asyncio.Task[bytes]) -> None:
    """Log the outcome of a call without its caller."""
    if not task.cancelled() and task.exception() is not None:
        log.warning("kept_call_failed", rpc=task.get_name(), reason=repr(task.exception()))
