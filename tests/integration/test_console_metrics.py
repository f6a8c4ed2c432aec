"""The numbers in replies: recorded if the operator allows it, shown over rounds, and exported."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flower_nats.broker.connection import Connection
from harness.children import PATIENCE
from harness.messages import instruction, reply
from tests.integration.consoles import Console, running_console

LOSSES = [[0.9, 0.5], [0.7, float("nan")]]


async def play(console: Console) -> str:
    """Let two nodes answer two rounds with their losses; return the id of the run."""
    gateway = console.gateway
    nodes = [await gateway.node() for _ in range(2)]
    app = await gateway.server_app()
    for losses in LOSSES:
        questions = [instruction(app.run_id, node.node_id) for node in nodes]
        await app.send(*questions)
        for at, (node, question) in enumerate(zip(nodes, questions, strict=True)):
            numbers = MetricRecord({"loss": losses[at], "num-examples": 10 + 20 * at, "=x": 1})
            lists = MetricRecord({"list": [1.0, 2.0]})
            content = RecordDict(
                {
                    "metrics": numbers,
                    "lists": lists,
                    "arrays": ArrayRecord([]),
                    "config": ConfigRecord({"at": at}),
                }
            )
            await node.pull()
            await node.send(reply(question, content))
    async with asyncio.timeout(PATIENCE):
        while True:
            timeline = await console.json(f"/runs/{app.run_id}/timeline.json")
            if [one["answered"] for one in timeline["rounds"]] == [2, 2]:
                return str(app.run_id)
            await asyncio.sleep(0.1)


async def test_numbers_in_replies_are_shown_over_rounds_and_exported(
    connection: Connection, nats_url: str, pg_dsn: str
) -> None:
    async with running_console(nats_url, pg_dsn, gateway={"record_metrics": True}) as console:
        path = f"/runs/{await play(console)}"
        plot = f"{path}/metrics/plot.json?metric=train/loss"
        found = await console.json(plot)
        page = (await console.http.get(f"{path}/metrics")).text
        rows: list[dict[str, Any]] = (await console.http.get(f"{path}/metrics.json")).json()
        table = await console.http.get(f"{path}/metrics.csv")
        odd = await console.json(f"{path}/metrics/plot.json?metric=%00nothing/%27%22")

    assert {one["name"] for one in found["names"]} == {"loss", "num-examples", "=x"}
    assert found["rounds"] == ["1", "2"]
    assert found["mean"] == [pytest.approx((0.9 * 10 + 0.5 * 30) / 40), pytest.approx(0.7)]
    assert found["is_weighted"] is True
    assert (found["least"], found["most"], found["count"]) == ([0.5, 0.7], [0.9, 0.7], [2, 1])
    assert sorted(one["values"][0] for one in found["nodes"]) == [0.5, 0.9]
    assert sorted(one["values"][1] is None for one in found["nodes"]) == [False, True]
    assert "weighted by num-examples" in page
    assert len(rows) == 4
    assert {one["round"] for one in rows} == {"1", "2"}
    assert "attachment" in table.headers["content-disposition"]
    cells = list(csv.DictReader(io.StringIO(table.text)))
    assert len(cells) == 12
    assert {one["metric"] for one in cells} == {"loss", "num-examples", "'=x"}
    assert [one["value"] for one in cells if one["metric"] == "loss"].count("") == 1
    assert odd["names"] == found["names"]


async def test_nothing_is_recorded_unless_the_operator_says_so(
    connection: Connection, nats_url: str, pg_dsn: str
) -> None:
    async with running_console(nats_url, pg_dsn) as console:
        path = f"/runs/{await play(console)}"
        found = await console.json(f"{path}/metrics/plot.json")
        page = (await console.http.get(f"{path}/metrics")).text
        table = (await console.http.get(f"{path}/metrics.csv")).text
        rows = (await console.http.get(f"{path}/metrics.json")).json()
        missing = await console.http.get("/runs/7/metrics.csv")

    assert found["names"] == []
    assert "--record-metrics" in page
    assert len(table.splitlines()) == 1
    assert rows == []
    assert missing.status_code == 404
