"""Everything that is not mailbox work: the request as it is to a superlink, its answer as it is back."""

from dataclasses import replace

from flower_nats.broker.connection import PATIENCE
from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats_gateway.call import Call

# PushTaskOutput is tried once by stock ServerApps: if it is lost, a finished training shows as failed
# a minute later. It is held until it is stored, whatever that takes; its caller sets no limit.
_PATIENCE = {"PushTaskOutput": 600.0}


class Forwarder:
    """Serves an RPC by having a superlink serve it."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    async def __call__(self, call: Call, caller: Caller) -> bytes:
        """Forward one call."""
        service, name = call.method.service, call.method.name
        caller = replace(caller, request_id=call.request_id)
        patience = _PATIENCE.get(name, PATIENCE)
        return await self._rpc.call(service, name, call.body, caller, patience=patience)
