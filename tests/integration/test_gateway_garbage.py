"""A call's memory is free when the call ends."""

from __future__ import annotations

import asyncio
import gc

from flwr.app import ConfigRecord, RecordDict

from flower_nats_gateway.calls.call import Call
from harness.channels import Refused, WireName
from harness.children import PATIENCE
from harness.messages import instruction, reply
from tests.integration.gateways import Gateway, running_stack

CONTENT = RecordDict({"model": ConfigRecord({"bytes": b"m" * 100_000})})


async def test_nothing_of_a_call_waits_for_the_garbage_collector(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        await exchange(gateway)
        gc.collect()
        gc.disable()
        try:
            await exchange(gateway)
            async with asyncio.timeout(PATIENCE):
                while calls_in_memory():
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()


async def exchange(gateway: Gateway) -> None:
    """Play a round with one node, and ask for objects that do not exist."""
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id, CONTENT)
    await app.send(question)
    for object_id in question.objects:
        await node.pull_object(app.run_id, object_id)
    answer = reply(question, CONTENT)
    await node.send(answer)
    for object_id in answer.objects:
        await app.pull_object(object_id)
    for nobodys in ("0" * 64, "no id"):
        try:
            await app.pull_object(nobodys)
        except Refused:
            continue


def calls_in_memory() -> list[Call]:
    return [one for one in gc.get_objects() if isinstance(one, Call)]
