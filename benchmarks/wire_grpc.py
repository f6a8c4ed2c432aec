"""A node's calls over gRPC, on a connection of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import Message as ProtoMessage

from benchmarks.fleet import Late, Proof, Refused, Unavailable, Wire, version_headers
from flower_nats.wire.methods import FLEET, Method

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # Without this option, all nodes would share one TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcWire(Wire):
    """A channel to the Fleet API."""

    def __init__(self, address: str, version: str, public_key: bytes) -> None:
        self._constant: tuple[tuple[str, str | bytes], ...] = (
            *version_headers(version, "SuperNode"),
            ("flwr-public-key-bin", public_key),
        )
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._calls: dict[str, Any] = {
            method.name: self._channel.unary_unary(
                method.path,
                response_deserializer=cast(Callable[[bytes], Any], method.response.FromString),
            )
            for method in FLEET
        }

    def metadata(self, proof: Proof) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata of a call."""
        return (
            *self._constant,
            ("flwr-timestamp", proof.timestamp),
            ("flwr-signature-bin", proof.signature),
        )

    async def send(
        self, method: Method, body: bytes, proof: Proof, timeout: float | None
    ) -> ProtoMessage:
        try:
            answer: ProtoMessage = await self._calls[method.name](
                body, metadata=self.metadata(proof), timeout=timeout
            )
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.UNAVAILABLE:
                raise Unavailable(f"UNAVAILABLE {exc.details()}") from exc
            if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Late from exc
            raise Refused(f"{method.name}: {exc.code().name} {exc.details()}") from exc
        return answer

    async def close(self) -> None:
        await self._channel.close()
