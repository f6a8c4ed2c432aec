"""The calls of SuperNodes and ServerApps, one by one, over any `Edge`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import Message as ProtoMessage

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from harness.messages import Parcel

Metadata = Sequence[tuple[str, str | bytes]]


class Edge(Protocol):
    """The object through which a client makes its calls."""

    async def call(
        self, service: str, method: str, request: ProtoMessage, metadata: Metadata = ()
    ) -> Any:
        """Call an RPC."""


class SuperNode:
    """A node that speaks as stock SuperNodes do."""

    def __init__(self, gateway: Edge, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.gateway = gateway
        self.key = key or ec.generate_private_key(ec.SECP384R1())
        self.public_key = self.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        self.node_id = 0

    def metadata(self, offset: float = 0.0) -> list[tuple[str, str | bytes]]:
        """Return metadata with a signed time that is `offset` seconds from now."""
        timestamp = (datetime.now(UTC) + timedelta(seconds=offset)).isoformat()
        signature = self.key.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))
        return [
            ("flwr-public-key-bin", self.public_key),
            ("flwr-timestamp", timestamp),
            ("flwr-signature-bin", signature),
        ]

    @property
    def node(self) -> common.Node:
        return common.Node(node_id=self.node_id)

    async def activate(self) -> None:
        request = fleet.ActivateNodeRequest(public_key=self.public_key, heartbeat_interval=30)
        self.node_id = (await self.call("ActivateNode", request)).node_id

    async def call(self, method: str, request: ProtoMessage, offset: float = 0.0) -> Any:
        return await self.gateway.call("Fleet", method, request, self.metadata(offset))

    async def pull(self) -> Any:
        """Call PullMessages; return the message and its tree's bytes, or None."""
        answer = await self.call("PullMessages", fleet.PullMessagesRequest(node=self.node))
        if not answer.messages_list:
            return None
        return answer.messages_list[0], answer.message_object_trees[0]

    async def confirm(self, run_id: int, message_id: str) -> None:
        request = common.ConfirmMessageReceivedRequest(
            node=self.node, run_id=run_id, message_object_id=message_id
        )
        await self.call("ConfirmMessageReceived", request)

    async def push(self, one: Parcel) -> Any:
        """Call PushMessages, without its objects."""
        request = fleet.PushMessagesRequest(
            node=self.node,
            messages_list=[one.proto],
            message_object_trees=[one.outgoing.tree],
        )
        return await self.call("PushMessages", request)

    async def push_object(
        self, run_id: int, session_id: str, object_id: str, content: bytes
    ) -> bool:
        request = common.PushObjectRequest(
            node=self.node,
            run_id=run_id,
            session_id=session_id,
            object_id=object_id,
            object_content=content,
        )
        return cast(bool, (await self.call("PushObject", request)).stored)

    async def send(self, one: Parcel) -> None:
        """Push a reply and its objects."""
        run_id = one.flwr.metadata.run_id
        answer = await self.push(one)
        for object_id in answer.objects_to_push:
            content = one.objects[object_id]
            assert await self.push_object(run_id, answer.session_id, object_id, content)

    async def pull_object(self, run_id: int, object_id: str) -> Any:
        request = common.PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id)
        return await self.call("PullObject", request)


@dataclass
class ServerApp:
    """A ServerApp process."""

    gateway: Edge
    run_id: int
    task_id: int
    token: str

    async def call(self, method: str, request: ProtoMessage, token: str | None = None) -> Any:
        metadata = [("flwr-task-token", self.token if token is None else token)]
        return await self.gateway.call("Runtime", method, request, metadata)

    async def push(self, *parcels: Parcel) -> Any:
        """Call PushMessages, without its objects."""
        request = runtime.PushAppMessagesRequest(
            messages_list=[one.proto for one in parcels],
            message_object_trees=[one.outgoing.tree for one in parcels],
        )
        return await self.call("PushMessages", request)

    async def push_object(self, session_id: str, object_id: str, content: bytes) -> bool:
        request = common.PushObjectRequest(
            node=common.Node(node_id=1),
            run_id=self.run_id,
            session_id=session_id,
            object_id=object_id,
            object_content=content,
        )
        return cast(bool, (await self.call("PushObject", request)).stored)

    async def send(self, *parcels: Parcel) -> list[str]:
        """Push instructions and their objects; return the ids from the server's answer."""
        answer = await self.push(*parcels)
        objects = dict(itertools.chain(*(one.objects.items() for one in parcels)))
        for object_id in answer.objects_to_push:
            assert await self.push_object(answer.session_id, object_id, objects[object_id])
        return list(answer.message_ids)

    async def pull(self, *message_ids: str) -> list[common.Message]:
        answer = await self.call(
            "PullMessages", runtime.PullAppMessagesRequest(message_ids=message_ids)
        )
        return list(answer.messages_list)

    async def pull_object(self, object_id: str) -> Any:
        request = common.PullObjectRequest(
            node=common.Node(node_id=1), run_id=self.run_id, object_id=object_id
        )
        return await self.call("PullObject", request)

    async def confirm(self, message_id: str) -> None:
        request = common.ConfirmMessageReceivedRequest(
            node=common.Node(node_id=1), run_id=self.run_id, message_object_id=message_id
        )
        await self.call("ConfirmMessageReceived", request)
