"""The questions of `flower-nats down` to superlinks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.superlink.runs import shutdown
from harness.children import PATIENCE
from tests.integration.superlinks import Superlink, running_superlink


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def test_runs_that_run_end_with_the_reason_and_pending_ones_are_kept(
    superlink: Superlink,
) -> None:
    runs = await superlink.running_task()
    pending = await superlink.start_run()

    before = (await superlink.command("UnfinishedRuns"))["runs"]
    ended = await superlink.command("EndRuns", reason="The power goes.")

    assert [(one["run_id"], one["status"]) for one in before] == [
        (str(runs.run_id), "running"),
        (str(pending.run_id), "pending"),
    ]
    assert ended == {"ended": [str(runs.run_id)]}
    assert await superlink.status(runs.run_id) == ("finished", "failed", "The power goes.")
    assert await superlink.status(pending.run_id) == ("pending", "", "")


async def test_no_run_is_taken_in_while_somebody_waits_for_the_last_one(
    superlink: Superlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "CLOSED_SECONDS", 1.0)
    await superlink.command("CloseToRuns", holder="down")

    with pytest.raises(ApiError) as refused:
        await superlink.start_run()

    assert refused.value.code is ErrorCode.FORBIDDEN_ACTION
    assert "is shutting down" in str(refused.value.public_details)
    # `down` has stopped waiting.
    async with asyncio.timeout(PATIENCE):
        await superlink.start_run_again()
