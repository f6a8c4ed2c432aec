"""Agents: their prompts, the memory of their series, and the apps of a federation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flower_nats.broker.objects import Objects
from flower_nats.model.errors import ErrorCode
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME
from harness.fabs import PROJECT, make_fab
from harness.messages import inflate
from tests.integration.superlinks import Superlink, Task, refused, running_superlink

AGENT = """
[project]
name = "helper"
version = "0.1.0"
description = "Knows it all"
[tool.flwr.app]
publisher = "somebody"
display-name = "The Helper"
color = "green"
[tool.flwr.app.components]
agentapp = "app.agent:app"
[tool.flwr.app.config]
agent.input = "Count the nodes."
"""

HERE = "@none/default"


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def ask(
    superlink: Superlink, prompt: str, client_version: str = "", **fields: Any
) -> control.StartRunResponse:
    request = control.StartRunRequest(
        fab=common.Fab(content=make_fab(AGENT)), user_prompt=prompt, **fields
    )
    return await superlink.call(
        "Control", "StartRun", request, control.StartRunResponse, client_version=client_version
    )


async def running_agent(superlink: Superlink, prompt: str, **fields: Any) -> Task:
    run = await ask(superlink, prompt, **fields)
    task = await superlink.claim(run.run_id)
    await task.pull_input()
    return task


async def pull_prompt(task: Task) -> runtime.PullAppMessagesResponse:
    return await task.call(
        "PullMessages", runtime.PullAppMessagesRequest(), runtime.PullAppMessagesResponse
    )


async def push_events(task: Task, *names: str) -> None:
    events = [common.TaskEvent(event=name, data="{}") for name in names]
    request = runtime.PushTaskEventsRequest(events=events)
    await task.call("PushTaskEvents", request, runtime.PushTaskEventsResponse)


async def control_call(superlink: Superlink, method: str, **fields: Any) -> Any:
    rpc = BY_NAME[("Control", method)]
    return await superlink.call("Control", method, rpc.request(**fields), rpc.response)


async def runtime_call(task: Task, method: str, **fields: Any) -> Any:
    rpc = BY_NAME[("Runtime", method)]
    return await task.call(method, rpc.request(**fields), rpc.response)


async def test_an_agent_finds_what_it_was_asked_however_often_it_has_to_look(
    superlink: Superlink,
) -> None:
    task = await running_agent(superlink, "  What is new?\n")
    objects = Objects(superlink.connection)

    first, again = await pull_prompt(task), await pull_prompt(task)

    assert first == again
    [sent], [tree] = first.messages_list, first.message_object_trees
    stored = {}
    node: common.ObjectTree | None = common.ObjectTree.FromString(tree)
    while node is not None:
        content = await objects.get(task.run_id, node.object_id)
        assert content is not None
        stored[node.object_id] = content
        node = node.children[0] if node.children else None
    message = inflate(sent.metadata.message_id, stored)
    assert message.content["agent"]["text"] == "What is new?"
    assert message.metadata.run_id == task.run_id


async def test_no_other_task_is_asked_anything(superlink: Superlink) -> None:
    serverapp = await superlink.running_task()
    agent = await running_agent(superlink, "Go on.")
    await agent.call(
        "CreateTask",
        runtime.CreateTaskRequest(type="flwr-model", model_ref="some/model"),
        runtime.CreateTaskResponse,
    )
    model = await superlink.claim(agent.run_id)
    await model.pull_input()

    assert not (await pull_prompt(serverapp)).messages_list
    assert not (await pull_prompt(model)).messages_list


async def test_an_agent_is_not_started_without_a_prompt(superlink: Superlink) -> None:
    with refused(ErrorCode.AGENTAPP_USER_PROMPT_REQUIRED):
        await ask(superlink, " \n")
    with refused(ErrorCode.AGENTAPP_USER_PROMPT_REQUIRED):
        await ask(superlink, "", client_version="1.38.0")


async def test_an_older_cli_has_its_agent_find_the_prompt_in_the_configuration(
    superlink: Superlink,
) -> None:
    task = await running_agent(superlink, "", client_version="1.37.0")

    [sent] = (await pull_prompt(task)).messages_list
    assert sent.metadata.message_type == "system"
    [series] = (await control_call(superlink, "ListRunSeries")).entries
    assert series.description == "Count the nodes."


async def test_an_agent_may_use_the_nodes_of_its_federation(superlink: Superlink) -> None:
    node = await superlink.online_node()
    task = await running_agent(superlink, "Who is there?")

    answer = await runtime_call(task, "GetNodes")

    assert [one.node_id for one in answer.nodes] == [node.node_id]


async def test_a_series_of_an_agents_runs_is_told_from_others(superlink: Superlink) -> None:
    agents = (await ask(superlink, "x" * 100)).series_id
    other = (await superlink.start_run()).series_id

    async def listed(**fields: Any) -> list[int]:
        entries = (await control_call(superlink, "ListRunSeries", **fields)).entries
        return [entry.series_id for entry in entries]

    assert await listed(is_agent=True) == [agents]
    assert await listed(is_agent=False) == [other]
    assert await listed(federation_id=HERE) == [other, agents]
    with refused(ErrorCode.FEDERATION_NOT_FOUND):
        await listed(federation_id="@none/other")
    found = await control_call(superlink, "GetRunSeries", series_id=agents)
    assert found.series.description == "x" * 79 + "…"


async def test_a_series_shows_its_runs(superlink: Superlink) -> None:
    first = await ask(superlink, "One.")
    second = await ask(superlink, "Two.", series_id=first.series_id)

    found = await control_call(superlink, "GetRunSeries", series_id=first.series_id)

    assert [run.run_id for run in found.runs] == [first.run_id, second.run_id]
    assert list(found.series.run_ids) == [first.run_id, second.run_id]
    assert found.series.description == "One."


async def test_a_series_can_be_described_anew(superlink: Superlink) -> None:
    series_id = (await ask(superlink, "One.")).series_id

    answer = await control_call(
        superlink, "UpdateRunSeriesDescription", series_id=series_id, description=" Better. "
    )

    assert answer.series.description == "Better."
    [listed] = (await control_call(superlink, "ListRunSeries")).entries
    assert listed.description == "Better."
    for wrong in ("", "  ", "x" * 81):
        with refused(ErrorCode.INVALID_RUN_SERIES_DESCRIPTION):
            await control_call(
                superlink, "UpdateRunSeriesDescription", series_id=series_id, description=wrong
            )
    with refused(ErrorCode.RUN_SERIES_ID_NOT_FOUND):
        await control_call(superlink, "UpdateRunSeriesDescription", series_id=7, description="x")


async def test_events_are_remembered_for_the_whole_series(superlink: Superlink) -> None:
    first = await running_agent(superlink, "One.")
    series_id = (await control_call(superlink, "ListRunSeries")).entries[0].series_id
    await push_events(first, "message", "thought", "message")
    second = await running_agent(superlink, "Two.", series_id=series_id)
    await push_events(second, "message")
    await second.call(
        "CreateTask",
        runtime.CreateTaskRequest(type="flwr-model", model_ref="some/model"),
        runtime.CreateTaskResponse,
    )
    model = await superlink.claim(second.run_id)
    await push_events(model, "usage")
    stranger = await running_agent(superlink, "Three.")
    await push_events(stranger, "message")

    async def remembered(**fields: Any) -> list[common.TaskEvent]:
        return list((await runtime_call(second, "GetRunSeriesEvents", **fields)).events)

    events = await remembered()
    assert [event.event for event in events] == ["message", "thought", "message", "message"]
    assert [event.run_id for event in events] == [*[first.run_id] * 3, second.run_id]
    ids = [event.id for event in events]
    assert ids == sorted(ids)
    assert await remembered(last_n=2) == events[2:]
    assert await remembered(event_types=["thought"]) == events[1:2]
    assert await remembered(after_event_id=ids[0], before_event_id=ids[3]) == events[1:3]
    assert await remembered(before_event_id=2**64 - 1) == events
    assert await remembered(after_event_id=2**64 - 1) == []
    listed = await control_call(superlink, "ListRunSeriesEvents", series_id=series_id)
    assert list(listed.events) == events
    with refused(ErrorCode.RUN_SERIES_ID_NOT_FOUND):
        await control_call(superlink, "ListRunSeriesEvents", series_id=7)


async def test_a_stream_may_be_of_the_events_of_the_primary_task_alone(
    superlink: Superlink,
) -> None:
    agent = await running_agent(superlink, "One.")
    await agent.call(
        "CreateTask",
        runtime.CreateTaskRequest(type="flwr-model", model_ref="some/model"),
        runtime.CreateTaskResponse,
    )
    model = await superlink.claim(agent.run_id)
    await push_events(agent, "message")
    await push_events(model, "delta")

    async def told(**fields: Any) -> list[str]:
        answer = await superlink.ask("TaskEvents", run_id=agent.run_id, after=0, **fields)
        return [common.TaskEvent.FromString(one).event for one in answer["events"]]

    assert await told() == ["message", "delta"]
    assert await told(primary_only=True) == ["message"]


async def test_summaries_are_kept_for_the_series_one_up_to_each_event(
    superlink: Superlink,
) -> None:
    first = await running_agent(superlink, "One.")
    series_id = (await control_call(superlink, "ListRunSeries")).entries[0].series_id
    second = await running_agent(superlink, "Two.", series_id=series_id)
    stranger = await running_agent(superlink, "Three.")

    async def put(task: Task, through: int, text: str, **fields: Any) -> None:
        context = common.CompactedContext(through_event_id=through, text=text, **fields)
        await runtime_call(task, "PutCompactedContext", context=context)

    async def get(task: Task, **fields: Any) -> list[common.CompactedContext]:
        return list((await runtime_call(task, "GetCompactedContexts", **fields)).contexts)

    await put(first, 3, "Much.", token_count=12)
    await put(second, 7, "More.", series_id=series_id)

    newest, oldest = await get(first, limit=5)
    assert (newest.text, oldest.text) == ("More.", "Much.")
    assert (oldest.series_id, oldest.through_event_id, oldest.token_count) == (series_id, 3, 12)
    assert oldest.created_at.endswith("+00:00")
    assert await get(second) == [newest]
    assert await get(second, before_context_id=newest.id) == [oldest]
    assert await get(second, before_context_id=2**64 - 1) == [newest]
    assert await get(stranger) == []
    with refused(ErrorCode.COMPACTED_CONTEXT_ALREADY_EXISTS):
        await put(first, 7, "Again.")
    for wrong in ({"text": ""}, {"text": "x", "series_id": 7}):
        with refused(ErrorCode.INVALID_COMPACTED_CONTEXT_REQUEST):
            await put(first, 9, **wrong)
    with refused(ErrorCode.INVALID_COMPACTED_CONTEXT_REQUEST):
        await get(first, limit=0)


async def test_a_summary_is_kept_once_however_often_a_gateway_asks(superlink: Superlink) -> None:
    task = await running_agent(superlink, "One.")
    context = common.CompactedContext(through_event_id=3, text="Much.")

    for _ in range(2):
        await task.call(
            "PutCompactedContext",
            runtime.PutCompactedContextRequest(context=context),
            runtime.PutCompactedContextResponse,
            request_id="one call",
        )


async def test_a_federation_has_the_apps_that_were_run_in_it(superlink: Superlink) -> None:
    await superlink.start_run()
    await ask(superlink, "One.")
    await superlink.call(
        "Control",
        "StartRun",
        control.StartRunRequest(
            fab=common.Fab(content=make_fab(PROJECT.replace("1.2.3", "1.2.4")))
        ),
        control.StartRunResponse,
    )

    agent, app = (await control_call(superlink, "ListApps", federation_id=HERE)).apps

    assert (agent.app_id, agent.app_type) == ("@somebody/helper", "flwr-agentapp")
    assert (agent.display_name, agent.description, agent.color) == (
        "The Helper",
        "Knows it all",
        "green",
    )
    assert (app.app_id, app.app_type) == ("@somebody/app", "flwr-serverapp")
    limited = await control_call(superlink, "ListApps", federation_id=HERE, limit=1)
    assert list(limited.apps) == [agent]
    found = await control_call(superlink, "ListAppAssociations", app_id=agent.app_id)
    assert list(found.federation_ids) == [HERE]

    # `flwr chat` continues with a listed agent like this.
    request = control.StartRunRequest(
        app_spec=agent.app_id, fab=common.Fab(hash_str=agent.fab_hash), user_prompt="Two."
    )
    run = await superlink.call("Control", "StartRun", request, control.StartRunResponse)
    assert run.run_id

    await control_call(superlink, "RemoveApp", federation_id=HERE, app_id=agent.app_id)
    assert list((await control_call(superlink, "ListApps", federation_id=HERE)).apps) == [app]
    found = await control_call(superlink, "ListAppAssociations", app_id=agent.app_id)
    assert not found.federation_ids


async def test_no_app_is_fetched_from_flower_hub(superlink: Superlink) -> None:
    with refused(ErrorCode.UNSUPPORTED_FAB_HUB_TRANSPORT, "download the app"):
        await control_call(superlink, "AddApp", federation_id=HERE, app_id="@flwrlabs/x")
    with refused(ErrorCode.INVALID_APP_SPEC):
        await control_call(superlink, "AddApp", federation_id=HERE, app_id="x")
    for method in ("ListApps", "AddApp", "RemoveApp"):
        with refused(ErrorCode.FEDERATION_NOT_FOUND):
            await control_call(superlink, method, federation_id="@none/other")
        with refused(ErrorCode.FEDERATION_NOT_SPECIFIED):
            await control_call(superlink, method)
