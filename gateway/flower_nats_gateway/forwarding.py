"""Everything that is not mailbox work: the request as it is to a superlink, its answer as it is back."""

import uuid
from dataclasses import replace

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats_gateway.call import Call


class Forwarder:
    """Serves an RPC by having a superlink serve it."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    async def __call__(self, call: Call, caller: Caller) -> bytes:
        """Forward one call."""
        caller = replace(caller, request_id=uuid.uuid4().hex)
        return await self._rpc.call(call.method.service, call.method.name, call.body, caller)
