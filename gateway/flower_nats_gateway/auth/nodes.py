"""SuperNodes: the key that signed a call, and its node."""

from dataclasses import replace
from functools import partial
from typing import Any

from flower_nats.broker.pushers import node_pusher
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.wire.methods import CallerKind
from flower_nats_gateway.auth.identify import Identify
from flower_nats_gateway.auth.signatures import Verifier
from flower_nats_gateway.auth.timestamps import check_age, parse_iso
from flower_nats_gateway.auth.used_signatures import UsedSignatures
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.cluster.directory import Directory, shut_out

log = get_logger(__name__)

# flwr 1.33 `supercore/constant.py`; over HTTP they travel in base64 (`transports/http/headers.py`).
PUBLIC_KEY = "flwr-public-key-bin"
SIGNATURE = "flwr-signature-bin"
TIMESTAMP = "flwr-timestamp"


class FleetAuthenticator:
    """SuperNodes sign the time of each call with their key, and must send that key's node id."""

    def __init__(
        self,
        directory: Directory,
        verifier: Verifier,
        used_signatures: UsedSignatures,
        *,
        supernode_auth: bool,
    ) -> None:
        self._directory = directory
        self._verifier = verifier
        self._used_signatures = used_signatures
        self._supernode_auth = supernode_auth

    async def __call__(self, call: Call) -> Identify:
        """Check the signature of a call."""
        public_key, signature = call.binary(PUBLIC_KEY), call.binary(SIGNATURE)
        timestamp = call.text(TIMESTAMP)
        if not (public_key and signature and timestamp):
            raise ApiError(ErrorCode.MISSING_AUTH_METADATA, "key, signature or timestamp missing")
        signed_at = parse_iso(timestamp)
        check_age(signed_at)
        if not await self._verifier.verify(public_key, timestamp.encode("ascii"), signature):
            raise ApiError(ErrorCode.INVALID_SIGNATURE, "the signature is not by this key")
        caller = Caller(
            public_key=public_key, signed_at=signed_at, supernode_auth=self._supernode_auth
        )
        if call.method.caller is CallerKind.KEY:
            return partial(self._identify_key, caller, signature)
        node = await self._directory.node(public_key)
        if node is not None and node.has_left:
            node = await self._directory.node_now(public_key)
        if node is None:
            reason = "the key of this call is not registered. Remedy: `flwr supernode register`"
            raise ApiError(ErrorCode.INVALID_NODE_ID, reason)
        if node.has_left and not call.method.farewell:
            raise shut_out(node.node_id)
        call.pusher = node_pusher(node.node_id)
        return partial(self._identify_node, replace(caller, node_id=node.node_id), signature)

    async def _identify_key(self, caller: Caller, signature: bytes, call: Call) -> Caller:
        request: Any = call.parse(call.method.request)
        if request.public_key != caller.public_key:
            raise ApiError(ErrorCode.INVALID_SIGNATURE, "the key is not the one that signed")
        self._use(caller, signature, call)
        return caller

    async def _identify_node(self, caller: Caller, signature: bytes, call: Call) -> Caller:
        request: Any = call.parse(call.method.request)
        claimed = getattr(request, "node", request).node_id
        if caller.node_id != claimed and not await self._is_now(claimed, caller):
            raise ApiError(ErrorCode.INVALID_NODE_ID, f"node {claimed} does not own this key")
        caller = replace(caller, node_id=claimed)
        self._use(caller, signature, call)
        return caller

    async def _is_now(self, claimed: int, caller: Caller) -> bool:
        node = await self._directory.node_now(caller.public_key or b"")
        return node is not None and not node.has_left and node.node_id == claimed

    def _use(self, caller: Caller, signature: bytes, call: Call) -> None:
        if not self._used_signatures.use(caller.public_key or b"", signature, call):
            log.warning("signature_used_again", node_id=caller.node_id, method=call.method.name)
            # If somebody else has used the signature before the node, this makes the node sign
            # again.
            raise Unavailable("the signature was used for another call before")
