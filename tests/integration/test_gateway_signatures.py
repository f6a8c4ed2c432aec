"""A signature of a SuperNode is valid for one call, at all gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flower_nats.broker.connection import Connection
from flower_nats.model.errors import Outcome
from flower_nats.wire import fleet_pb2 as fleet
from harness.channels import Metadata, WireName
from harness.clients import SuperNode
from harness.messages import instruction, reply
from tests.integration.gateways import Gateway, refusal, running_pair

# The order of the group of P-384.
_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)


@pytest.fixture
async def gateways(
    connection: Connection, nats_url: str, pg_dsn: str, wire: WireName
) -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with running_pair(nats_url, pg_dsn, wire) as pair:
        yield pair


def heartbeat(node: SuperNode) -> fleet.SendNodeHeartbeatRequest:
    return fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)


def mirrored(metadata: Metadata) -> Metadata:
    """Return the second valid signature, which anybody can compute from the first."""
    found = dict(metadata)
    signature = found["flwr-signature-bin"]
    assert isinstance(signature, bytes)
    r, s = decode_dss_signature(signature)
    found["flwr-signature-bin"] = encode_dss_signature(r, _ORDER - s)
    return list(found.items())


async def test_a_signature_of_one_call_is_good_for_no_other(
    gateways: tuple[Gateway, Gateway],
) -> None:
    one, other = gateways
    node = await one.node()
    metadata = node.metadata()
    farewell = fleet.UnregisterNodeFleetRequest(node_id=node.node_id)
    await one.call("Fleet", "SendNodeHeartbeat", heartbeat(node), metadata)

    for stolen in (metadata, mirrored(metadata)):
        said = await refusal(one.call("Fleet", "UnregisterNode", farewell, stolen))
        assert said.outcome is Outcome.UNAVAILABLE

    # The other gateway hears of the used signature within moments.
    await asyncio.sleep(0.3)
    said = await refusal(other.call("Fleet", "UnregisterNode", farewell, metadata))
    assert said.outcome is Outcome.UNAVAILABLE
    assert (await node.call("SendNodeHeartbeat", heartbeat(node))).success


async def test_nor_for_the_same_method_with_another_body(
    gateways: tuple[Gateway, Gateway],
) -> None:
    gateway, _ = gateways
    node, app = await gateway.node(), await gateway.server_app()
    one, two = instruction(app.run_id, node.node_id), instruction(app.run_id, node.node_id)
    await app.send(one, two)
    metadata = node.metadata()

    def push(answer: object) -> fleet.PushMessagesRequest:
        parcel = reply(answer)  # type: ignore[arg-type]
        return fleet.PushMessagesRequest(
            node=node.node,
            messages_list=[parcel.proto],
            message_object_trees=[parcel.outgoing.tree],
        )

    await gateway.call("Fleet", "PushMessages", push(one), metadata)
    said = await refusal(gateway.call("Fleet", "PushMessages", push(two), metadata))
    assert said.outcome is Outcome.UNAVAILABLE


async def test_the_same_call_may_come_again_by_any_gateway(
    gateways: tuple[Gateway, Gateway],
) -> None:
    node = await gateways[0].node()
    metadata = node.metadata()
    for gateway in (*gateways, *gateways):
        answer = await gateway.call("Fleet", "SendNodeHeartbeat", heartbeat(node), metadata)
        assert answer.success


async def test_a_key_that_is_spelled_otherwise_or_on_another_curve_is_refused(
    gateways: tuple[Gateway, Gateway],
) -> None:
    gateway, _ = gateways
    node = SuperNode(gateway)
    whole = node.public_key
    for spelled in (whole.replace(b"\n", b"\r\n"), whole + b"\n", b"comment\n" + whole):
        node.public_key = spelled
        request = fleet.RegisterNodeFleetRequest(public_key=spelled)
        said = await refusal(node.call("RegisterNode", request))
        assert said.outcome is Outcome.UNAUTHENTICATED

    foreign = SuperNode(gateway, ec.generate_private_key(ec.BrainpoolP512R1()))
    foreign.public_key = foreign.key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    request = fleet.RegisterNodeFleetRequest(public_key=foreign.public_key)
    said = await refusal(foreign.call("RegisterNode", request))
    assert said.outcome is Outcome.UNAUTHENTICATED
