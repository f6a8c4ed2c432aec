"""The life of a run, in a superlink's answers to gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.ids import token_hash
from flower_nats.superlink.api import control_runs
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from harness.fabs import PROJECT, make_fab
from tests.integration.superlinks import Superlink, refused, running_superlink

RunList = control.ListRunsResponse


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def list_runs(superlink: Superlink, *, client_version: str = "", **fields: int) -> RunList:
    request = control.ListRunsRequest(**fields)
    return await superlink.call(
        "Control", "ListRuns", request, RunList, client_version=client_version
    )


async def stop(superlink: Superlink, run_id: int, **caller: str) -> bool:
    request = control.StopRunRequest(run_id=run_id)
    answer = await superlink.call("Control", "StopRun", request, control.StopRunResponse, **caller)
    return answer.success


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
    # Apps of flwr 1.38 and newer need these three values for the metadata of their messages.
    assert common.Context.FromString(given.context).node_id == 1

    await task.push_output(details="all is well")
    assert await superlink.status(run.run_id) == ("finished", "completed", "all is well")


async def test_a_run_is_shown_with_all_that_is_known_of_it(superlink: Superlink) -> None:
    overrides = {"rounds": common.Scalar(sint64=7)}
    started = await superlink.start_run(override_config=overrides)

    listed = await list_runs(superlink, run_id=started.run_id)

    [run] = listed.run_dict.values()
    assert (run.fab_id, run.fab_version, run.federation) == (
        "somebody/app",
        "1.2.3",
        "@none/default",
    )
    assert (run.flwr_aid, run.account_name) == ("<id:none>", "none")
    assert run.primary_task_type == "flwr-serverapp"
    assert run.override_config["rounds"].sint64 == 7
    assert run.status.status == "pending"
    assert run.pending_at <= listed.now
    assert run.pending_at.endswith("+00:00")
    assert run.running_at == ""
    assert run.series_id == started.series_id


async def test_a_run_is_started_once_however_often_a_gateway_asks(superlink: Superlink) -> None:
    request = control.StartRunRequest(fab=common.Fab(content=make_fab()))

    answers = await asyncio.gather(
        *(
            superlink.call(
                "Control", "StartRun", request, control.StartRunResponse, request_id="one call"
            )
            for _ in range(5)
        )
    )

    assert len({answer.run_id for answer in answers}) == 1
    assert len((await list_runs(superlink)).run_dict) == 1


async def test_runs_are_listed_newest_first_and_no_more_than_asked_for(
    superlink: Superlink,
) -> None:
    started = [(await superlink.start_run()).run_id for _ in range(3)]

    limited = await list_runs(superlink, limit=2)

    assert set(limited.run_dict) == set(started[1:])
    assert set((await list_runs(superlink)).run_dict) == set(started)
    skipped = await list_runs(superlink, limit=2, skip=1)
    assert set(skipped.run_dict) == set(started[:2])
    assert not (await list_runs(superlink, limit=0)).run_dict


async def test_newer_clients_are_shown_twenty_runs_if_they_do_not_say_how_many(
    superlink: Superlink,
) -> None:
    started = [(await superlink.start_run()).run_id for _ in range(22)]

    async def listed(version: str) -> set[int]:
        return set((await list_runs(superlink, client_version=version)).run_dict)

    assert await listed("1.40.0") == set(started[2:])
    assert await listed("") == set(started[2:])
    assert await listed("1.39.0") == set(started)


async def test_runs_of_one_moment_are_listed_in_one_order(superlink: Superlink) -> None:
    for _ in range(6):
        await superlink.start_run()
    await superlink.database.execute("UPDATE run SET created_at = now()")

    pages = [(await list_runs(superlink, limit=2, skip=skip)).run_dict for skip in (0, 2, 4)]

    assert len({run_id for page in pages for run_id in page}) == 6


async def test_overrides_have_a_bound_and_lists_are_without_them(superlink: Superlink) -> None:
    fab = make_fab(PROJECT.replace("rounds = 3", 'text = ""'))

    def with_text(length: int) -> control.StartRunRequest:
        value = common.Scalar(string="x" * length)
        return control.StartRunRequest(fab=common.Fab(content=fab), override_config={"text": value})

    good = await superlink.call(
        "Control", "StartRun", with_text(256 * 1024 - 100), control.StartRunResponse
    )
    for length in (256 * 1024, 10_000_000):
        with refused(ErrorCode.INVALID_RUN_CONFIG, "at most 262,144 (256 KiB) are accepted"):
            await superlink.call("Control", "StartRun", with_text(length), control.StartRunResponse)

    listed = await list_runs(superlink)
    assert set(listed.run_dict) == {good.run_id}
    assert listed.ByteSize() < 2_000
    alone = await list_runs(superlink, run_id=good.run_id)
    assert len(alone.run_dict[good.run_id].override_config["text"].string) > 260_000


async def test_a_prompt_has_a_bound(superlink: Superlink) -> None:
    with refused(ErrorCode.INVALID_RUN_CONFIG, "The prompt has 262,145 bytes"):
        await superlink.start_run(user_prompt="x" * (256 * 1024 + 1))


@pytest.mark.parametrize("version", ["1.33.0", "1.42.0"])
async def test_no_list_is_longer_than_a_page(
    superlink: Superlink, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(control_runs, "MOST_LISTED", 2)
    started = [(await superlink.start_run()).run_id for _ in range(3)]

    async def listed(**fields: int) -> set[int]:
        return set((await list_runs(superlink, client_version=version, **fields)).run_dict)

    assert await listed(limit=5) == set(started[1:])
    assert await listed(limit=5, skip=2) == {started[0]}
    if version == "1.33.0":
        assert await listed() == set(started[1:])


async def test_an_unknown_run_is_refused(superlink: Superlink) -> None:
    with refused(ErrorCode.RUN_ID_NOT_FOUND):
        await list_runs(superlink, run_id=5)
    with refused(ErrorCode.RUN_ID_NOT_FOUND):
        await stop(superlink, 5)
    with refused(ErrorCode.RUN_ID_NOT_FOUND):
        await superlink.ask("TaskEvents", run_id=5, after=0)
    assert await superlink.status(5) == (None, "", "")


async def test_an_invalid_app_is_refused_and_leaves_no_trace(superlink: Superlink) -> None:
    for fab, said in (
        (b"nonsense", "not a readable zip archive"),
        (b"x" * 10_500_000, "10,500,000"),
        (make_fab(PROJECT.replace("[tool.flwr.app]", "[tool.x]")), "[tool.flwr.app]"),
    ):
        request = control.StartRunRequest(fab=common.Fab(content=fab))
        with refused(ErrorCode.INVALID_RUN_CONFIG, said):
            await superlink.call("Control", "StartRun", request, control.StartRunResponse)
    with refused(ErrorCode.INVALID_RUN_CONFIG, '"round"'):
        await superlink.start_run(override_config={"round": common.Scalar(sint64=1)})
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION):
        await superlink.start_run(federation="@none/other")
    with refused(ErrorCode.UNSUPPORTED_FAB_HUB_TRANSPORT):
        request = control.StartRunRequest(app_spec="@somebody/app")
        await superlink.call("Control", "StartRun", request, control.StartRunResponse)
    with refused(ErrorCode.INVALID_APP_SPEC):
        request = control.StartRunRequest(app_spec="somebody/app")
        await superlink.call("Control", "StartRun", request, control.StartRunResponse)
    with refused(ErrorCode.CONNECTOR_NOT_FOUND):
        await superlink.start_run(connector_refs=["mail"])
    with refused(ErrorCode.CONNECTOR_NOT_FOUND):
        await superlink.start_run(connector_ids=[5])
    with refused(ErrorCode.RUN_SERIES_ID_NOT_FOUND):
        await superlink.start_run(series_id=77)

    assert not (await list_runs(superlink)).run_dict
    assert await superlink.database.fetch_all("SELECT fab_hash FROM fab") == []


async def test_a_known_app_can_be_started_by_its_hash(superlink: Superlink) -> None:
    first = await superlink.start_run()
    fab_hash = (await list_runs(superlink, run_id=first.run_id)).run_dict[first.run_id].fab_hash

    def by(hash_str: str, app_spec: str = "") -> control.StartRunRequest:
        return control.StartRunRequest(fab=common.Fab(hash_str=hash_str), app_spec=app_spec)

    answer = await superlink.call("Control", "StartRun", by(fab_hash), control.StartRunResponse)
    assert answer.run_id != first.run_id
    with refused(ErrorCode.FAB_DOWNLOAD_FAILURE):
        await superlink.call("Control", "StartRun", by("ab"), control.StartRunResponse)
    named = by(fab_hash, "@somebody/app")
    assert await superlink.call("Control", "StartRun", named, control.StartRunResponse)
    with refused(ErrorCode.INVALID_APP_SPEC):
        wrong = by(fab_hash, "@somebody/other")
        await superlink.call("Control", "StartRun", wrong, control.StartRunResponse)


async def test_a_stopped_run_takes_its_tasks_with_it(superlink: Superlink) -> None:
    task = await superlink.running_task()

    assert await stop(superlink, task.run_id)

    assert await superlink.status(task.run_id) == ("finished", "stopped", "")
    assert await superlink.ask("ResolveToken", task_token=token_hash(task.token)) == {"task": None}
    assert not await task.heartbeat()
    with refused(ErrorCode.RUN_ALREADY_FINISHED):
        await stop(superlink, task.run_id)
    with refused(ErrorCode.AUTHENTICATION_FAILED):
        await task.push_output()
    assert await superlink.status(task.run_id) == ("finished", "stopped", "")


async def test_a_stop_that_a_gateway_has_to_repeat_is_still_a_success(
    superlink: Superlink,
) -> None:
    run = await superlink.start_run()

    assert await stop(superlink, run.run_id, request_id="one stop")
    assert await stop(superlink, run.run_id, request_id="one stop")


async def test_a_task_is_claimed_by_one_superexec(superlink: Superlink) -> None:
    run = await superlink.start_run()
    pending = await superlink.call(
        "Runtime",
        "PullPendingTasks",
        runtime.PullPendingTasksRequest(),
        runtime.PullPendingTasksResponse,
    )
    [task] = pending.tasks
    assert (task.run_id, task.type, task.status.status) == (
        run.run_id,
        "flwr-serverapp",
        "pending",
    )

    answers = await asyncio.gather(
        *(
            superlink.call(
                "Runtime",
                "ClaimTask",
                runtime.ClaimTaskRequest(task_id=task.task_id),
                runtime.ClaimTaskResponse,
            )
            for _ in range(6)
        )
    )

    assert [len(answer.token) for answer in answers if answer.HasField("token")] == [256]


async def test_a_claim_whose_answer_was_lost_or_that_comes_late_has_the_same_token(
    superlink: Superlink,
) -> None:
    run = await superlink.start_run()
    task = await superlink.claim(run.run_id, request_id="one claim")
    again = await superlink.call(
        "Runtime",
        "ClaimTask",
        runtime.ClaimTaskRequest(task_id=task.task_id),
        runtime.ClaimTaskResponse,
        request_id="one claim",
    )

    assert again.token == task.token
    await task.pull_input()


async def test_the_input_can_be_pulled_again_with_the_same_token(superlink: Superlink) -> None:
    run = await superlink.start_run()
    task = await superlink.claim(run.run_id)

    first, second = await task.pull_input(), await task.pull_input()

    assert (first.context, first.fab) == (second.context, second.fab)
    assert second.run.running_at == first.run.running_at
    task.token = "0" * 256
    with refused(ErrorCode.TASK_START_FAILED, f"task {task.task_id} of run {task.run_id}"):
        await task.pull_input()


async def test_an_output_is_taken_once_however_often_a_gateway_asks(
    superlink: Superlink,
) -> None:
    task = await superlink.running_task()

    for _ in range(3):
        await task.push_output(clientapp_runtime=2.5, request_id="one output")

    [run] = (await list_runs(superlink, run_id=task.run_id)).run_dict.values()
    assert run.clientapp_runtime == 2.5
    assert run.status.sub_status == "completed"


async def test_a_task_that_never_ran_cannot_have_completed(superlink: Superlink) -> None:
    run = await superlink.start_run()
    task = await superlink.claim(run.run_id)

    await task.push_output("completed")
    assert (await superlink.status(run.run_id))[0] == "starting"

    await task.push_output("failed", details="no such module")
    assert await superlink.status(run.run_id) == ("finished", "failed", "no such module")


async def test_an_unknown_sub_status_is_refused(superlink: Superlink) -> None:
    task = await superlink.running_task()

    with refused(ErrorCode.MALFORMED_REQUEST):
        await task.push_output("splendid")

    assert (await superlink.status(task.run_id))[0] == "running"


async def test_a_task_sees_its_own_run_only(superlink: Superlink) -> None:
    mine, other = await superlink.running_task(), await superlink.start_run()

    async def get(run_id: int) -> common.GetRunResponse:
        request = common.GetRunRequest(run_id=run_id)
        return await mine.call("GetRun", request, common.GetRunResponse)

    assert (await get(mine.run_id)).run.run_id == mine.run_id
    assert not (await get(other.run_id)).HasField("run")


async def test_runs_of_a_series_share_the_state_they_leave(superlink: Superlink) -> None:
    first = await superlink.running_task()
    series_id = (await list_runs(superlink, run_id=first.run_id)).run_dict[first.run_id].series_id
    left = common.Context(run_id=first.run_id, node_id=1, state=b"\x0a\x00", series_id=series_id)
    await first.push_output(context=left.SerializeToString())

    run = await superlink.start_run(series_id=series_id)
    second = await superlink.claim(run.run_id)
    context = common.Context.FromString((await second.pull_input()).context)

    assert (context.run_id, context.node_id, context.series_id) == (run.run_id, 1, series_id)
    assert context.state == b"\x0a\x00"
    found = await superlink.call(
        "Control",
        "GetRunSeries",
        control.GetRunSeriesRequest(series_id=series_id),
        control.GetRunSeriesResponse,
    )
    assert list(found.series.run_ids) == [first.run_id, run.run_id]
    assert found.series.last_run_status.status == "running"
    assert common.Context.FromString(found.context).state == b"\x0a\x00"


async def test_series_are_listed_last_updated_first(superlink: Superlink) -> None:
    runs = [await superlink.start_run() for _ in range(3)]
    await superlink.start_run(series_id=runs[0].series_id)

    async def listed(**fields: object) -> list[common.RunSeries]:
        request = control.ListRunSeriesRequest(**fields)  # type: ignore[arg-type]
        answer = await superlink.call(
            "Control", "ListRunSeries", request, control.ListRunSeriesResponse
        )
        return list(answer.entries)

    newest_first = [runs[0].series_id, runs[2].series_id, runs[1].series_id]
    assert [series.series_id for series in await listed()] == newest_first
    assert [series.series_id for series in await listed(limit=1)] == newest_first[:1]
    older = await listed(updated_before=(await listed())[1].updated_at)
    assert [series.series_id for series in older] == newest_first[2:]
    with refused(ErrorCode.FEDERATION_NOT_FOUND):
        await listed(federation_id="@none/other")
    for moment in ("yesterday", "2026-01-01"):
        with refused(ErrorCode.MALFORMED_REQUEST, "time zone" if "-" in moment else ""):
            await listed(updated_before=moment)


async def test_garbage_is_refused(superlink: Superlink) -> None:
    with pytest.raises(ApiError) as error:
        await superlink.rpc.call("Control", "StartRun", b"\xff\xff\xff", patience=5)

    assert error.value.code is ErrorCode.INVALID_PROTOBUF_PAYLOAD
