"""Slow and unfinished replies: each instruction gets one outcome, soon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from flwr.app import ConfigRecord, RecordDict

from flower_nats.broker import pushers
from flower_nats.superlink import wiring
from flower_nats.superlink.housekeeping import messages as message_housekeeping
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import fleet_pb2 as fleet
from harness.channels import Refused, WireName
from harness.children import PATIENCE
from harness.clients import ServerApp, SuperNode
from harness.messages import Parcel, instruction, reply
from tests.integration.gateways import Gateway, running_stack
from tests.integration.test_gateway_bad_input import changed
from tests.integration.test_gateway_bodies import Upload

SESSION = 1.5
"""Seconds without a push after which a session is given up, in place of 180."""


@pytest.fixture
async def gateway(
    nats_url: str, pg_dsn: str, wire: WireName, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(message_housekeeping, "SESSION_SECONDS", SESSION)
    monkeypatch.setattr(pushers, "TELL_EVERY", SESSION / 10)
    monkeypatch.setattr(wiring, "_SWEEP_EVERY", SESSION / 10)
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


async def push_slowly(gateway: Gateway, node: SuperNode, answer: Parcel) -> tuple[Upload, bytes]:
    """Push a reply but for half of its largest object; return the upload, and that half."""
    run_id = answer.outgoing.metadata.run_id
    session = (await node.push(answer)).session_id
    *small, (object_id, content) = sorted(answer.objects.items(), key=lambda one: len(one[1]))
    for one in small:
        assert await node.push_object(run_id, session, *one)
    body = common.PushObjectRequest(
        node=node.node,
        run_id=run_id,
        object_id=object_id,
        object_content=content,
        session_id=session,
    ).SerializeToString()
    upload = await Upload.begin(gateway, "Fleet", "PushObject")
    half = len(body) // 2
    await upload.announce(len(body), body[:half], node.metadata())
    return upload, body[half:]


def large_reply(question: Parcel) -> Parcel:
    return reply(question, RecordDict({"large": ConfigRecord({"bytes": bytes(20_000)})}))


async def asked(gateway: Gateway) -> tuple[SuperNode, ServerApp, Parcel]:
    """Return a node, a ServerApp, and the ServerApp's instruction to the node."""
    node, app = await gateway.node(), await gateway.server_app()
    # Housekeeping gives up sessions only while heartbeats arrive.
    beat = fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30)
    await node.call("SendNodeHeartbeat", beat)
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    return node, app, question


async def error_of(app: ServerApp, question: Parcel) -> common.Error:
    async with asyncio.timeout(PATIENCE):
        while not (replies := await app.pull(question.message_id)):
            pass
    [found] = replies
    assert found.HasField("error")
    return found.error


async def test_a_reply_on_a_slow_line_counts_however_long_it_takes(gateway: Gateway) -> None:
    node, app, question = await asked(gateway)

    upload, rest = await push_slowly(gateway, node, large_reply(question))
    await asyncio.sleep(3 * SESSION)
    await upload.more(rest, end=True)

    assert await upload.heard()
    [found] = await app.pull(question.message_id)
    assert not found.HasField("error")


async def test_a_reply_whose_line_breaks_for_good_is_ended_by_an_error_reply(
    gateway: Gateway,
) -> None:
    node, app, question = await asked(gateway)
    answer = large_reply(question)

    upload, _ = await push_slowly(gateway, node, answer)
    upload.end()

    assert "stopped sending it before it was complete" in (await error_of(app, question)).reason
    # The node comes back late: no answer ends the node, and its reply has no effect.
    assert list((await node.push(answer)).objects_to_push) == []
    assert (await error_of(app, question)).code == 4


async def test_a_reply_that_is_refused_ends_its_instruction_at_once(gateway: Gateway) -> None:
    node, other, app = await gateway.node(), await gateway.node(), await gateway.server_app()
    questions = [instruction(app.run_id, node.node_id, ttl=60.0 + number) for number in range(3)]
    await app.send(*questions)
    broken, longest, whole = questions

    with pytest.raises(Refused):
        await node.push(changed(reply(broken), message_type=""))
    assert not (await node.push(changed(reply(longest), ttl=1e6))).session_id
    with pytest.raises(Refused):
        await other.push(changed(reply(whole), message_type=""))

    assert "message_type" in (await error_of(app, broken)).reason
    assert "outlive" in (await error_of(app, longest)).reason
    # A wrong reply of another node to this instruction is not the fault of its own node.
    await node.send(reply(whole))
    [found] = await app.pull(whole.message_id)
    assert not found.HasField("error")
