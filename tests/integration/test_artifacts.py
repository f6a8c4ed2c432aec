"""`flwr pull`: a link to a run's artifacts, valid for a while, for callers that may see the run."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.proto.message_pb2 import Context as ContextProto

from flower_nats.model.account import Role
from flower_nats.model.errors import ErrorCode
from flower_nats.wire import control_pb2 as control
from harness.channels import Refused, WireName
from tests.integration.gateways import Gateway, refusal, running_stack
from tests.integration.people import Person
from tests.integration.superlinks import Task
from tests.integration.test_audit import trail

LAB = "@ana/lab"


@pytest.fixture
async def gateway(nats_url: str, pg_dsn: str, wire: WireName) -> AsyncIterator[Gateway]:
    settings = {"accounts": True, "max_artifacts": 1}
    async with running_stack(nats_url, pg_dsn, wire, superlink=settings) as gateway:
        yield gateway


def left(**records: Any) -> RecordDict:
    return RecordDict(dict(records))


async def begun(ana: Person) -> Task:
    task = await ana.superlink.claim(await ana.start_run(LAB))
    await task.pull_input()
    return task


async def leave(task: Task, state: RecordDict) -> None:
    """End like a stock ServerApp, which sends its context."""
    context = Context(task.run_id, 0, {}, state, {"lr": 0.1})
    await task.push_output(context=context_to_proto(context).SerializeToString())


async def pull(gateway: Gateway, person: Person, run_id: int) -> str:
    """Return the link that `flwr pull` prints for a person."""
    metadata = person.logged_in.metadata(gateway.wire)
    request = control.PullArtifactsRequest(run_id=run_id)
    return str((await gateway.call("Control", "PullArtifacts", request, metadata)).url)


async def load(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


async def test_what_an_app_leaves_in_its_context_is_downloaded_as_files(gateway: Gateway) -> None:
    superlink = gateway.superlink
    ana = await Person.come(superlink, "ana")
    await ana.create("lab")
    task = await begun(ana)
    unfinished = await refusal(pull(gateway, ana, task.run_id))
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    await leave(
        task,
        left(
            model=ArrayRecord({"layer/weight": Array(weights)}),
            metrics=MetricRecord({"accuracy": 0.9, "losses": [0.5, 0.25]}),
            **{"../notes": ConfigRecord({"by": "ana", "raw": b"\x00\x01"})},
        ),
    )

    url = await pull(gateway, ana, task.run_id)
    answer = await load(url)

    assert unfinished.code == ErrorCode.PULL_UNFINISHED_RUN
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert f"run-{task.run_id}.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert json.loads(files["run.json"])["run_id"] == str(task.run_id)
    context = context_from_proto(ContextProto.FromString(files["context.pb"]))
    assert context.state["metrics"]["accuracy"] == 0.9
    assert np.array_equal(np.load(io.BytesIO(files["state/model.npz"]))["layer/weight"], weights)
    metrics = json.loads(files["state/metrics.json"])
    assert metrics == {"accuracy": 0.9, "losses": [0.5, 0.25]}
    notes = [name for name in files if "notes" in name]
    assert json.loads(files[notes[0]]) == {"by": "ana", "raw": "AAE="}
    assert not any(".." in name or "\\" in name for name in files)

    # The event names the person, but neither the link nor the file's content.
    pulled = [one for one in await trail(superlink) if one[1] in {"PullArtifacts", "Download"}]
    run = f"run {task.run_id}"
    assert pulled == [
        ("ana", "PullArtifacts", run, "PULL_UNFINISHED_RUN"),
        ("ana", "PullArtifacts", run, "done"),
        ("ana", "Download", run, "done"),
    ]


async def test_a_link_leads_nowhere_once_its_account_may_not_see_the_run(
    gateway: Gateway,
) -> None:
    superlink = gateway.superlink
    ana, ben = await Person.come(superlink, "ana"), await Person.come(superlink, "ben")
    await ana.create("lab")
    await ana.invite(ben, LAB)
    task = await begun(ana)
    await leave(task, left())
    seen = await pull(gateway, ben, task.run_id)
    first = await load(seen)
    again = await load(seen)
    await ana.call("RemoveAccountFromFederation", federation_name=LAB, account_name="ben")
    removed = await load(seen)
    hidden = await refusal(pull(gateway, ben, task.run_id))
    of_ana = await pull(gateway, ana, task.run_id)
    await superlink.command("DisableAccount", name="ana")
    disabled = await load(of_ana)
    made_up = await load(f"{seen}x")
    operator = await Person.come(superlink, "operator", Role.OPERATOR)
    old = await pull(gateway, operator, task.run_id)
    await superlink.database.execute("UPDATE download SET expires_at = now()")
    expired = await load(old)

    assert first.status_code == again.status_code == 200
    assert removed.status_code == 404
    assert hidden.code == ErrorCode.RUN_ID_NOT_FOUND
    assert disabled.status_code == made_up.status_code == expired.status_code == 404
    assert "flwr pull" in expired.text


async def test_what_is_too_large_or_was_gone_on_with_is_refused_with_the_remedy(
    gateway: Gateway,
) -> None:
    ana = await Person.come(gateway.superlink, "ana")
    await ana.create("lab")
    task = await begun(ana)
    await leave(task, left(model=ArrayRecord({"w": Array(np.zeros(2**20, dtype=np.uint8))})))
    with pytest.raises(Refused) as too_large:
        await pull(gateway, ana, task.run_id)
    await gateway.superlink.database.execute(
        "INSERT INTO run SELECT 7, series_id, 7, fab_id, fab_version, fab_hash, override_config, "
        "federation, account_id FROM run WHERE run_id = %(run)s",
        run=task.run_id,
    )
    await gateway.superlink.database.execute(
        "INSERT INTO task (task_id, run_id, type, status) VALUES (7, 7, 'flwr-serverapp', 'pending')"
    )
    with pytest.raises(Refused) as gone_on:
        await pull(gateway, ana, task.run_id)

    assert "--max-artifact-mib" in too_large.value.text
    assert "flwr pull 7" in gone_on.value.text
