"""The dashboard and the alert rules use only metrics that the runtime serves."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import httpx
import yaml
from flwr.app import RecordDict
from prometheus_client.parser import text_string_to_metric_families

from flower_nats.wire import control_pb2 as control
from harness.children import PATIENCE
from harness.messages import instruction, reply
from tests.integration.gateways import free_address, running_stack

FOLDER = Path(__file__).parents[2] / "docs" / "grafana"


def expressions() -> list[str]:
    board = json.loads((FOLDER / "board.json").read_text())
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return [
        *(target["expr"] for panel in board["panels"] for target in panel["targets"]),
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
    ]


async def scrape(address: str | None) -> str:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{address}/metrics", timeout=PATIENCE)
    return answer.text


async def test_every_name_and_label_is_served(nats_url: str, pg_dsn: str) -> None:
    address = free_address()
    async with (
        asyncio.timeout(PATIENCE),
        running_stack(nats_url, pg_dsn, superlink={"http_health_address": address}) as gateway,
    ):
        node, app = await gateway.node(), await gateway.server_app()
        question = instruction(app.run_id, node.node_id)
        await app.send(question)
        await node.pull()
        await node.send(reply(question, RecordDict()))
        await gateway.call("Control", "StopRun", control.StopRunRequest(run_id=app.run_id))
        while "flower_nats_run_seconds" not in (of_superlink := await scrape(address)):
            await asyncio.sleep(0.2)
        texts = [of_superlink, await scrape(gateway.settings.http_health_address)]
    families = [one for text in texts for one in text_string_to_metric_families(text)]
    samples = [sample for family in families for sample in family.samples]
    served = {sample.name for sample in samples} | set(
        re.findall(r"^# TYPE (\w+) ", "\n".join(texts), re.M)
    )
    labels = {label for sample in samples for label in sample.labels} | {"instance"}
    used = {name for one in expressions() for name in re.findall(r"flower_nats_\w+", one)}
    told_apart_by = {
        label
        for one in expressions()
        for names in re.findall(r"by \(([\w, ]+)\)|[{,](\w+)!?=", one)
        for label in "".join(names).split(", ")
    }

    assert used
    assert used - served == set()
    assert told_apart_by
    assert told_apart_by - labels == set()
    values = {(one.name, *one.labels.values()): one.value for one in samples}
    assert values["flower_nats_messages_total", "put_out"] == 1
    assert values["flower_nats_messages_total", "answered"] == 1
    assert values["flower_nats_rounds_total", "train"] == 1
    assert values["flower_nats_run_seconds_count", "stopped"] == 1
    assert values["flower_nats_bytes_total", "from_nodes"] > 0
    assert values["flower_nats_calls_total", "Control", "OK", "StopRun"] == 1
