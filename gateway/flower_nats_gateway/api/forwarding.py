"""Everything that is not mailbox work: the request as it is to a superlink, its answer as it is back."""

import asyncio
from dataclasses import replace

from flower_nats.broker.connection import PATIENCE
from flower_nats.broker.rpc import RpcClient
from flower_nats.logs import get_logger
from flower_nats.model.caller import ASKED_FOR, Caller
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.runlog.pending import PendingLines

log = get_logger(__name__)

_KEPT = {"PushTaskOutput": ASKED_FOR}
"""Calls that stock ServerApps try once, with the seconds for which each is tried on here: if it is
lost, a finished training shows as failed a minute later. Once it is here it is stored, whatever
becomes of its caller's connection meanwhile; its caller sets no limit."""


class Forwarder:
    """Serves an RPC by having a superlink serve it."""

    def __init__(self, rpc: RpcClient, unstored: PendingLines, gateway: str) -> None:
        self._rpc = rpc
        self._unstored = unstored
        self._gateway = gateway
        self._kept: set[asyncio.Task[bytes]] = set()

    async def __call__(self, call: Call, caller: Caller) -> bytes:
        """Forward one call."""
        caller = replace(caller, request_id=call.request_id, gateway=self._gateway)
        patience = _KEPT.get(call.method.name)
        if patience is None:
            return await self._ask(call, caller, PATIENCE)
        task = asyncio.create_task(self._end(call, caller, patience), name=call.method.name)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell)
            raise

    async def _end(self, call: Call, caller: Caller, patience: float) -> bytes:
        if caller.run_id is not None:
            await self._unstored.until_no_more(caller.run_id)
        return await self._ask(call, caller, patience)

    async def _ask(self, call: Call, caller: Caller, patience: float) -> bytes:
        service, name = call.method.api, call.method.name
        return await self._rpc.call(service, name, call.body, caller, patience=patience)


def _tell(task: asyncio.Task[bytes]) -> None:
    """Say how a call went whose caller is gone."""
    if not task.cancelled() and task.exception() is not None:
        log.warning("kept_call_failed", rpc=task.get_name(), reason=repr(task.exception()))
