"""The history of exchanges: the times at which messages were sent, taken and answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

from flower_nats.broker.connection import Connection
from flower_nats.model.exchange import ExchangeNote
from flower_nats.store.connection import Row
from flower_nats.store.exchanges import Exchanges
from flower_nats.wire import fleet_pb2 as fleet
from harness.children import PATIENCE
from harness.messages import instruction, reply
from tests.integration.gateways import Gateway, running_stack


@pytest.fixture
async def gateway(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn) as gateway:
        yield gateway


async def rows(gateway: Gateway, run_id: int) -> list[Row]:
    return await gateway.superlink.database.fetch_all(
        "SELECT * FROM exchange WHERE run_id = %(run_id)s ORDER BY put_out_at", run_id=run_id
    )


async def recorded(gateway: Gateway, run_id: int, outcomes: set[str]) -> list[Row]:
    """Wait until the exchanges of a run have these outcomes."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await rows(gateway, run_id)
            if found and {row["outcome"] for row in found} == outcomes:
                return found
            await asyncio.sleep(0.05)


async def test_an_exchange_is_recorded_with_its_times_and_bytes(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.pull()
    await node.confirm(app.run_id, question.message_id)
    await node.send(reply(question, RecordDict({"a": ArrayRecord([np.ones(1000)])})))

    [row] = await recorded(gateway, app.run_id, {"answered"})

    assert row["node_id"] == node.node_id
    assert row["message_type"] == "train"
    assert row["put_out_at"] <= row["taken_at"] <= row["answered_at"]
    assert row["bytes_sent"] > 0
    assert row["bytes_recv"] > 8000
    [sent] = await Exchanges(gateway.superlink.database).sends(app.run_id)
    assert (sent.sent, sent.answered, sent.failed) == (1, 1, 0)
    history_of = Exchanges(gateway.superlink.database)
    sessions = [one.session_id for one in await history_of.sends(app.run_id)]
    [history] = await history_of.by_node(app.run_id, sessions)
    assert history.sessions == [sent.session_id]
    assert 0 <= history.waits[0] <= history.works[0]


async def test_an_answer_in_the_place_of_a_node_that_is_gone_says_why(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    await app.send(instruction(app.run_id, node.node_id))
    await node.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=node.node_id))

    [row] = await recorded(gateway, app.run_id, {"unanswered"})

    assert row["node_id"] == node.node_id
    assert row["reason"]
    [failed] = await Exchanges(gateway.superlink.database).failures(app.run_id, 10)
    assert (failed.reason, failed.count) == (row["reason"], 1)
    assert failed.node_ids == [node.node_id]


async def test_notes_of_several_gateways_add_up_in_any_order(gateway: Gateway) -> None:
    app = await gateway.server_app()
    exchanges = Exchanges(gateway.superlink.database)
    await exchanges.add(
        [ExchangeNote(app.run_id, 7, answered=1.0, outcome="failed", reason="no\0 room")]
    )
    await exchanges.add(
        [
            ExchangeNote(app.run_id, 7, 5, 3, "train", "1", put_out=9.0, bytes_sent=10),
            ExchangeNote(app.run_id + 1, 7, 5, 3, "train", "1", put_out=9.0),
        ]
    )
    await exchanges.add([ExchangeNote(app.run_id, 7, 5, taken=8.0, bytes_sent=5)])

    [row] = await rows(gateway, app.run_id)
    assert (row["session_id"], row["group_id"], row["outcome"]) == (3, "1", "failed")
    assert row["reason"] == "no� room"
    assert row["bytes_sent"] == 15
    assert row["put_out_at"] < row["taken_at"] < row["answered_at"]
    [node] = await exchanges.of_nodes([5], 1)
    assert (node.runs, node.exchanges, node.failed) == (1, 1, 1)
