"""Objects of one message that arrive at two gateways at the same moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flower_nats.superlink import wiring
from harness.channels import WireName
from harness.clients import ServerApp, SuperNode
from harness.messages import Parcel, instruction, reply
from tests.integration.gateways import Gateway, running_pair

EXCHANGES = 30


async def test_a_message_whose_objects_come_by_two_gateways_is_there_at_once(
    nats_url: str, pg_dsn: str, wire: WireName, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Housekeeping would complete unfinished messages, and hide a fault of the gateways.
    monkeypatch.setattr(wiring, "_SWEEP_EVERY", 3600.0)
    async with running_pair(nats_url, pg_dsn, wire) as (one, other):
        app, node = await one.server_app(), await one.node()
        apps, nodes = (app, replace(app, gateway=other)), (node, by_way_of(other, node))
        for _ in range(EXCHANGES):
            question = instruction(app.run_id, node.node_id)
            await push_objects_by_both(apps, question)
            pulled = await node.pull()
            assert pulled is not None
            assert pulled[0].metadata.message_id == question.message_id
            answer = reply(question)
            await push_replies_objects_by_both(nodes, answer)
            (got,) = await app.pull(question.message_id)
            assert got.metadata.message_id == answer.message_id
            await app.confirm(answer.message_id)


def by_way_of(gateway: Gateway, node: SuperNode) -> SuperNode:
    again = SuperNode(gateway, node.key)
    again.node_id = node.node_id
    return again


async def push_objects_by_both(apps: tuple[ServerApp, ServerApp], question: Parcel) -> None:
    pushed = await apps[0].push(question)
    stored = await asyncio.gather(
        *(
            apps[number % 2].push_object(pushed.session_id, one, question.objects[one])
            for number, one in enumerate(pushed.objects_to_push)
        )
    )
    assert all(stored)


async def push_replies_objects_by_both(nodes: tuple[SuperNode, SuperNode], answer: Parcel) -> None:
    run_id = answer.flwr.metadata.run_id
    pushed = await nodes[0].push(answer)
    stored = await asyncio.gather(
        *(
            nodes[number % 2].push_object(run_id, pushed.session_id, one, answer.objects[one])
            for number, one in enumerate(pushed.objects_to_push)
        )
    )
    assert all(stored)
