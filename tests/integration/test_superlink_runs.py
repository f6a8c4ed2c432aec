"""The life of a run, as gateways see it through a superlink."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire import appio_pb2 as appio
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from tests.integration.superlinks import Superlink, make_fab, running_superlink


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def test_a_run_goes_from_pending_to_completed(superlink: Superlink) -> None:
    run = await superlink.start_run()
    assert await superlink.status(run.run_id) == ("pending", "", "")

    task = await superlink.claim(run.run_id)
    assert await superlink.status(run.run_id) == ("starting", "", "")

    given = await task.pull_input()
    assert await superlink.status(run.run_id) == ("running", "", "")
    assert given.run.run_id == run.run_id
    assert given.fab.content == make_fab()
    assert given.task_id == task.task_id

    await task.push_output(details="all is well")
    assert await superlink.status(run.run_id) == ("finished", "completed", "all is well")
