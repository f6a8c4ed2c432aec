"""The Fleet API as a stock SuperNode calls it: its metadata, its signatures, its retries.

Read off ``client/grpc_rere_client`` and ``supercore/retry`` of the flwr 1.33.0 wheel.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata

MAX_RETRY_DELAY = 20.0
"""Seconds a node waits at most before it repeats a call."""

_SIGNATURE_SECONDS = 200.0
"""How long a signature made ahead is used; servers take it for 305 s."""

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # Without its own pool, gRPC would put all nodes on one TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_VERSION_METADATA = RuntimeVersionMetadata.from_local_component("SuperNode")

_RESPONSES: dict[str, Any] = {
    "RegisterNode": fleet_pb2.RegisterNodeFleetResponse,
    "ActivateNode": fleet_pb2.ActivateNodeResponse,
    "SendNodeHeartbeat": heartbeat_pb2.SendNodeHeartbeatResponse,
    "PullMessages": fleet_pb2.PullMessagesResponse,
    "PushMessages": fleet_pb2.PushMessagesResponse,
    "GetRun": run_pb2.GetRunResponse,
    "GetFab": fab_pb2.GetFabResponse,
    "PullObject": message_pb2.PullObjectResponse,
    "PushObject": message_pb2.PushObjectResponse,
    "ConfirmMessageReceived": message_pb2.ConfirmMessageReceivedResponse,
}


@dataclass
class Tally:
    """What all nodes of a generator did so far."""

    calls: Counter[str] = field(default_factory=Counter)
    """RPCs by method."""

    empty_pulls: int = 0
    """PullMessages that brought nothing, each followed by a sleep."""

    retries: int = 0
    """Calls repeated after UNAVAILABLE."""

    late_heartbeats: int = 0
    """Heartbeats not answered within 5 s, and repeated."""

    waits: int = 0
    """Objects found announced but not yet available, each followed by a back-off."""

    bytes_pulled: int = 0
    bytes_pushed: int = 0
    errors: list[str] = field(default_factory=list)
    """What no stock node would have met in a healthy federation."""


_Signature = tuple[tuple[str, str], tuple[str, bytes]]


class FleetCalls:
    """The Fleet API over a channel of one node's own, every call with a signature of its own.

    A call is signed when it is made, unless ``sign_ahead`` left a signature to use: on machines of
    their own, nodes would not take the CPU for that from the server.
    """

    def __init__(self, address: str, tally: Tally) -> None:
        self._key, public_key = generate_key_pairs()
        self.public_key: bytes = public_key_to_bytes(public_key)
        self._constant = (
            *_VERSION_METADATA.append_to_grpc_metadata(None),
            ("flwr-public-key-bin", self.public_key),
        )
        self._signed: list[_Signature] = []
        self._signed_at = 0.0
        self._tally = tally
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            name: self._channel.unary_unary(
                f"/flwr.proto.Fleet/{name}", response_deserializer=response.FromString
            )
            for name, response in _RESPONSES.items()
        }

    def sign_ahead(self, calls: int) -> None:
        """Make the signatures of the next ``calls`` calls now; each is used once."""
        self._signed = [self._sign() for _ in range(calls)]
        self._signed_at = time.monotonic()

    def _sign(self) -> _Signature:
        timestamp: str = now().isoformat()
        signature = self._key.sign(timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        return ("flwr-timestamp", timestamp), ("flwr-signature-bin", signature)

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        ahead = self._signed and time.monotonic() - self._signed_at < _SIGNATURE_SECONDS
        return (*self._constant, *(self._signed.pop() if ahead else self._sign()))

    async def call(self, method: str, request: bytes, timeout: float | None = None) -> Any:
        """Call ``method`` with a serialized request, for as long as the server is unavailable."""
        ceiling = 1.0
        while True:
            self._tally.calls[method] += 1
            try:
                return await self._methods[method](
                    request, metadata=self._metadata(), timeout=timeout
                )
            except grpc.aio.AioRpcError as exc:
                if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            self._tally.retries += 1
            await asyncio.sleep(random.uniform(0, ceiling))
            ceiling = min(2 * ceiling, MAX_RETRY_DELAY)

    async def close(self) -> None:
        await self._channel.close()
