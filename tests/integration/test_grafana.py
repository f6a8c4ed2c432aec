"""The board and the alert rules use names that are served."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path

import yaml

from tests.integration.gateways import free_address, running_stack

FOLDER = Path(__file__).parents[2] / "docs" / "grafana"


def expressions() -> list[str]:
    board = json.loads((FOLDER / "board.json").read_text())
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    return [
        *(target["expr"] for panel in board["panels"] for target in panel["targets"]),
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
    ]


def scrape(address: str | None) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: bytes = answer.read()
    return text.decode()


async def test_every_name_is_served(nats_url: str, pg_dsn: str) -> None:
    address = free_address()
    async with running_stack(
        nats_url, pg_dsn, superlink={"http_health_address": address}
    ) as gateway:
        await gateway.node()
        texts = [
            await asyncio.to_thread(scrape, one)
            for one in (address, gateway.settings.http_health_address)
        ]
    served = set(re.findall(r"^# TYPE (\w+) ", "\n".join(texts), re.M))
    used = {name for one in expressions() for name in re.findall(r"flower_nats_\w+", one)}

    assert used
    assert {name.removesuffix("_bucket") for name in used} - served == set()
