"""Finished runs are deleted with all their data, and nothing else is deleted."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator

import pytest

from flower_nats.broker import subjects
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from harness.environment import SCRIPTS, clean_environment
from harness.fabs import PROJECT, make_fab
from harness.waiting import until
from tests.integration.superlinks import Superlink, refused, running_superlink

TABLES = ("run", "task", "series", "fab", "app", "task_event", "task_usage", "task_message")

OTHER = make_fab(PROJECT.replace("1.2.3", "1.2.4"))
"""Another version of the same app."""


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def rows(superlink: Superlink) -> dict[str, int]:
    """Return the number of rows of each table."""
    counts = {}
    for table in TABLES:
        row = await superlink.database.fetch_one(f"SELECT count(*) AS count FROM {table}")
        assert row is not None
        counts[table] = row["count"]
    return counts


async def start(
    superlink: Superlink, fab: bytes, series_id: int | None = None
) -> control.StartRunResponse:
    request = control.StartRunRequest(fab=common.Fab(content=fab), series_id=series_id)
    return await superlink.call("Control", "StartRun", request, control.StartRunResponse)


async def end(superlink: Superlink, run_id: int) -> None:
    """Stop a run, and note that nothing of it is left in the broker."""
    request = control.StopRunRequest(run_id=run_id)
    await superlink.call("Control", "StopRun", request, control.StopRunResponse)
    await superlink.database.execute(
        "UPDATE run SET cleaned_at = now() WHERE run_id = %(run)s", run=run_id
    )


async def delete(superlink: Superlink, run_id: int) -> None:
    await superlink.command("DeleteRun", run_id=run_id)


async def app_fab(superlink: Superlink) -> str:
    [row] = await superlink.database.fetch_all("SELECT fab_hash FROM app")
    return str(row["fab_hash"])


async def test_nothing_is_left_of_a_deleted_run(superlink: Superlink) -> None:
    task = await superlink.running_task()
    run_id = task.run_id
    left = (subjects.log(run_id), subjects.push(run_id, "ab", 0))
    await superlink.connection.store(left[0], b"a line\n")
    for insert in (
        "INSERT INTO task_event (run_id, task_id, event, data) VALUES (%(run)s, %(task)s, '', '')",
        "INSERT INTO task_usage (run_id, task_id, body) VALUES (%(run)s, %(task)s, '')",
        "INSERT INTO task_message VALUES (%(run)s::text, %(task)s, now(), now() + '1 h', '')",
        "INSERT INTO compacted_context (series_id, through_event_id, text, token_count) "
        "SELECT series_id, %(task)s, '', 1 FROM run WHERE run_id = %(run)s",
    ):
        await superlink.database.execute(insert, run=run_id, task=task.task_id)
    await end(superlink, run_id)

    await delete(superlink, run_id)

    assert set((await rows(superlink)).values()) == {0}
    assert await superlink.connection.last(subjects.LOGS_STREAM, left[0]) is None
    with refused(ErrorCode.RUN_ID_NOT_FOUND):
        await delete(superlink, run_id)


async def test_a_run_under_way_is_not_deleted(superlink: Superlink) -> None:
    task = await superlink.running_task()

    with refused(ErrorCode.FORBIDDEN_ACTION) as error:
        await delete(superlink, task.run_id)

    assert f"is running. Remedy: end it with `flwr stop {task.run_id}`" in error.value.detail
    assert await superlink.status(task.run_id) == ("running", "", "")


async def test_a_run_that_has_just_ended_is_deleted_once_it_has_settled(
    superlink: Superlink,
) -> None:
    run = await superlink.start_run()
    request = control.StopRunRequest(run_id=run.run_id)
    await superlink.call("Control", "StopRun", request, control.StopRunResponse)
    with refused(ErrorCode.FORBIDDEN_ACTION):
        await delete(superlink, run.run_id)

    async def is_deleted() -> bool:
        try:
            await delete(superlink, run.run_id)
        except ApiError:
            return False
        return True

    await until(is_deleted)


async def test_what_other_runs_need_stays(superlink: Superlink) -> None:
    first = await start(superlink, make_fab())
    second = await start(superlink, make_fab(), series_id=first.series_id)
    third = await start(superlink, OTHER)
    for run in (first, second, third):
        await end(superlink, run.run_id)

    await delete(superlink, first.run_id)
    counts = await rows(superlink)
    assert (counts["run"], counts["series"], counts["fab"], counts["app"]) == (2, 2, 2, 1)
    request = control.GetRunSeriesRequest(series_id=first.series_id)
    series = await superlink.call("Control", "GetRunSeries", request, control.GetRunSeriesResponse)
    assert list(series.series.run_ids) == [second.run_id]
    # The series goes on.
    fourth = await start(superlink, make_fab(), series_id=first.series_id)
    await end(superlink, fourth.run_id)

    # The newest FAB of the app goes with its run: an older FAB takes its place.
    newest = await start(superlink, OTHER)
    await end(superlink, newest.run_id)
    before = await app_fab(superlink)
    await delete(superlink, third.run_id)
    assert await app_fab(superlink) == before
    await delete(superlink, newest.run_id)
    assert await app_fab(superlink) != before
    assert (await rows(superlink))["fab"] == 1


async def test_runs_start_while_their_like_are_deleted(superlink: Superlink) -> None:
    run = await superlink.start_run()
    for _ in range(5):
        await end(superlink, run.run_id)
        _, run = await asyncio.gather(delete(superlink, run.run_id), superlink.start_run())

    assert (await rows(superlink))["run"] == 1
    assert (await rows(superlink))["fab"] == 1


async def test_an_operator_deletes_runs_by_a_command(superlink: Superlink, nats_url: str) -> None:
    over, going = await superlink.start_run(), await superlink.start_run()
    await end(superlink, over.run_id)

    done = await asyncio.to_thread(
        subprocess.run,
        [str(SCRIPTS / "flower-nats"), "run", "delete", str(over.run_id), str(going.run_id), "7"],
        env=clean_environment({"FLOWER_NATS_RUN_NATS": nats_url}),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stdout == f"Run {over.run_id} is deleted.\n"
    assert f"Run {going.run_id} is pending. Remedy: end it with `flwr stop" in done.stderr
    assert "There is no run 7." in done.stderr
    assert "Warning" not in done.stderr
    assert (await rows(superlink))["run"] == 1
