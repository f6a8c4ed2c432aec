"""Simulated federations: how to make and configure them, and the tasks of their runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flower_nats.model.errors import ErrorCode
from flower_nats.model.ids import token_hash
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from harness.fabs import PROJECT, make_fab
from tests.integration.superlinks import Superlink, refused, running_superlink

DEFAULT = "@none/default"
SIMULATED = "@none/simulated"


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    """A superlink with a default federation of real SuperNodes."""
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


@pytest.fixture
async def simulating(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    """A superlink with a simulated default federation."""
    async with running_superlink(nats_url, pg_dsn, simulation=True) as superlink:
        yield superlink


async def create(superlink: Superlink, name: str, **fields: Any) -> common.Federation:
    fields = {"simulation": True, **fields}
    request = control.CreateFederationRequest(federation_name=name, **fields)
    answer = await superlink.call(
        "Control", "CreateFederation", request, control.CreateFederationResponse
    )
    return answer.federation


async def configure(superlink: Superlink, federation: str = "", **config: Any) -> str:
    request = control.ConfigureSimulationFederationRequest(
        federation_name=federation, config=common.SimulationConfig(**config)
    )
    answer = await superlink.call(
        "Control",
        "ConfigureSimulationFederation",
        request,
        control.ConfigureSimulationFederationResponse,
    )
    return answer.federation_name


async def archive(superlink: Superlink, federation: str) -> None:
    request = control.ArchiveFederationRequest(federation_name=federation)
    await superlink.call("Control", "ArchiveFederation", request, control.ArchiveFederationResponse)


async def show(superlink: Superlink, federation: str) -> common.Federation:
    request = control.ShowFederationRequest(federation_name=federation)
    answer = await superlink.call(
        "Control", "ShowFederation", request, control.ShowFederationResponse
    )
    return answer.federation


async def listed(superlink: Superlink) -> list[common.Federation]:
    answer = await superlink.call(
        "Control",
        "ListFederations",
        control.ListFederationsRequest(),
        control.ListFederationsResponse,
    )
    return list(answer.federations)


async def test_the_process_of_a_run_is_told_how_to_simulate(simulating: Superlink) -> None:
    await configure(simulating, num_supernodes=10, init_args_num_cpus=4)

    run = await simulating.start_run(
        override_federation_config=common.SimulationConfig(num_supernodes=3, verbose=True)
    )
    task = await simulating.claim(run.run_id, client_version="1.30.0")
    given = await task.pull_input()

    assert task.task_type == "flwr-simulation"
    assert given.federation_config == common.SimulationConfig(
        num_supernodes=3,
        client_resources_num_cpus=2,
        client_resources_num_gpus=0.0,
        backend="ray",
        verbose=True,
        init_args_num_cpus=4,
        init_args_logging_level="WARNING",
        init_args_log_to_driver=True,
    )
    await task.push_output(clientapp_runtime=2.5)
    assert await simulating.status(run.run_id) == ("finished", "completed", "")


async def test_a_configuration_keeps_what_was_said_before(simulating: Superlink) -> None:
    assert await configure(simulating, num_supernodes=10) == DEFAULT
    assert await configure(simulating, DEFAULT, client_resources_num_cpus=1) == DEFAULT

    shown = await show(simulating, DEFAULT)

    assert shown.simulation
    assert shown.config.num_supernodes == 10
    assert shown.config.client_resources_num_cpus == 1
    assert shown.config.backend == "ray"


@pytest.mark.parametrize(
    ("details", "names_remedy"),
    [
        ("Task failed with unknown error.", True),
        ("Simulation failed with exception: An error was encountered. Ending simulation.", True),
        ("Simulation failed with exception: x is 0", False),
    ],
)
async def test_a_failure_that_may_be_for_want_of_ray_names_the_remedy(
    simulating: Superlink, details: str, names_remedy: bool
) -> None:
    run = await simulating.start_run()
    task = await simulating.claim(run.run_id)
    await task.pull_input()

    await task.push_output("failed", details=details)

    _, _, told = await simulating.status(run.run_id)
    assert told.startswith(details)
    assert ("pip install '.[simulation]'" in told) == names_remedy


async def test_an_agent_has_no_supernodes_to_simulate(simulating: Superlink) -> None:
    project = PROJECT.replace('serverapp = "app.server:app"', 'agentapp = "app.server:app"')
    fab = common.Fab(content=make_fab(project.replace('clientapp = "app.client:app"', "")))

    run = await simulating.call(
        "Control",
        "StartRun",
        control.StartRunRequest(fab=fab, user_prompt="hello"),
        control.StartRunResponse,
    )

    task = await simulating.claim(run.run_id)
    assert task.task_type == "flwr-agentapp"
    assert not (await task.pull_input()).HasField("federation_config")


async def test_simulated_federations_stand_beside_that_of_supernodes(superlink: Superlink) -> None:
    created = await create(superlink, "simulated", description="ten of them")
    await configure(superlink, SIMULATED, num_supernodes=10)
    node = await superlink.online_node()

    simulated = await superlink.start_run(federation=SIMULATED)
    deployed = await superlink.start_run()

    assert (created.name, created.description, created.simulation) == (
        *(SIMULATED, "ten of them"),
        True,
    )
    assert [(one.name, one.simulation) for one in await listed(superlink)] == [
        (DEFAULT, False),
        (SIMULATED, True),
    ]
    assert (simulated.federation, deployed.federation) == (SIMULATED, DEFAULT)
    shown = await show(superlink, SIMULATED)
    assert [run.run_id for run in shown.runs] == [simulated.run_id]
    assert (list(shown.nodes), shown.config.num_supernodes) == ([], 10)
    shown = await show(superlink, DEFAULT)
    assert [run.run_id for run in shown.runs] == [deployed.run_id]
    assert [one.node_id for one in shown.nodes] == [node.node_id]
    assert (await superlink.claim(simulated.run_id)).task_type == "flwr-simulation"
    task = await superlink.claim(deployed.run_id)
    assert task.task_type == "flwr-serverapp"
    assert not (await task.pull_input()).HasField("federation_config")


async def test_an_archived_federation_has_its_runs_stopped_and_takes_no_more(
    superlink: Superlink,
) -> None:
    await create(superlink, "simulated")
    run = await superlink.start_run(federation=SIMULATED)

    await archive(superlink, SIMULATED)

    assert (await superlink.status(run.run_id))[:2] == ("finished", "stopped")
    assert [one.archived for one in await listed(superlink)] == [False, True]
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION):
        await superlink.start_run(federation=SIMULATED)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION):
        await configure(superlink, SIMULATED, num_supernodes=3)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION):
        await archive(superlink, SIMULATED)
    with refused(ErrorCode.FEDERATION_ALREADY_EXISTS):
        await create(superlink, "simulated")


async def test_what_is_not_for_simulations_is_refused_with_the_remedy(
    superlink: Superlink,
) -> None:
    await create(superlink, "deployed", simulation=False)
    for federation in (DEFAULT, "@none/deployed"):
        with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, "--simulation"):
            await configure(superlink, federation, num_supernodes=3)
    with refused(ErrorCode.FORBIDDEN_ACTION, "federation create"):
        await archive(superlink, DEFAULT)


@pytest.mark.parametrize("name", ["@none/x", "-x", "x y", "x" * 33, "x\0"])
async def test_a_name_that_is_none_is_refused(superlink: Superlink, name: str) -> None:
    with refused(ErrorCode.INVALID_FEDERATION_NAME, "letters, digits"):
        await create(superlink, name)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_supernodes": 0}, "num-supernodes must be at least 1"),
        ({"client_resources_num_cpus": 0}, "client-resources-num-cpus must be at least 1"),
        ({"init_args_num_cpus": 0}, "init-args-num-cpus must be at least 1"),
        ({"client_resources_num_gpus": -0.5}, "client-resources-num-gpus"),
        ({"client_resources_num_gpus": float("nan")}, "client-resources-num-gpus"),
        ({"backend": "dask"}, "no simulation backend 'dask'"),
        ({"init_args_logging_level": "LOUD"}, "such as WARNING"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused(
    simulating: Superlink, config: dict[str, Any], said: str
) -> None:
    with refused(ErrorCode.INVALID_RUN_CONFIG, said):
        await configure(simulating, **config)
    with refused(ErrorCode.INVALID_RUN_CONFIG, said):
        await simulating.start_run(override_federation_config=common.SimulationConfig(**config))

    assert (await show(simulating, DEFAULT)).config.num_supernodes == 2
    assert await pending(simulating) == []


async def acquire(superlink: Superlink, host: str = "", **caller: Any) -> int | None:
    """Acquire a task like the SuperExec of a host; return the task's run."""
    request = runtime.AcquireTaskRequest(supported_task_types=["flwr-serverapp", "flwr-simulation"])
    answer = await superlink.call(
        "Runtime",
        "AcquireTask",
        request,
        runtime.AcquireTaskResponse,
        superexec_host=host,
        **caller,
    )
    return answer.task.run_id if answer.HasField("task") else None


async def pending(superlink: Superlink, host: str = "") -> list[int]:
    """Ask for pending tasks like an older SuperExec of a host; return their runs."""
    answer = await superlink.call(
        "Runtime",
        "PullPendingTasks",
        runtime.PullPendingTasksRequest(),
        runtime.PullPendingTasksResponse,
        superexec_host=host,
    )
    return [task.run_id for task in answer.tasks]


async def announce(superlink: Superlink, host: str, simulations: int) -> None:
    await superlink.ask("Announce", kind="superexec", id=host, since=1.0, simulations=simulations)


async def test_a_host_takes_no_more_simulations_than_it_runs_at_a_time(
    superlink: Superlink,
) -> None:
    await create(superlink, "simulated")
    await announce(superlink, "one", 1)
    await announce(superlink, "two", 2)
    runs = [(await superlink.start_run(federation=SIMULATED)).run_id for _ in range(5)]

    assert await acquire(superlink, "one", request_id="first") == runs[0]
    assert await acquire(superlink, "one") is None
    # The answer was lost: the repeated request gets it again.
    assert await acquire(superlink, "one", request_id="first") == runs[0]
    assert await acquire(superlink, "two") == runs[1]
    assert await acquire(superlink, "two") == runs[2]
    assert await acquire(superlink, "two") is None
    assert await pending(superlink, "two") == []
    assert await pending(superlink) == runs[3:]

    # Other tasks are not limited.
    deployed = await superlink.start_run()
    assert await pending(superlink, "one") == [deployed.run_id]
    assert await acquire(superlink, "one") == deployed.run_id

    request = control.StopRunRequest(run_id=runs[0])
    await superlink.call("Control", "StopRun", request, control.StopRunResponse)
    assert await acquire(superlink, "one") == runs[3]
    # A SuperExec without a host takes any task.
    assert await acquire(superlink) == runs[4]


async def test_a_simulation_whose_process_is_gone_fails_with_the_reason(
    simulating: Superlink,
) -> None:
    run = await simulating.start_run()
    task = await simulating.claim(run.run_id)
    await task.pull_input()

    await simulating.ask("TaskLost", task_token=token_hash("of nobody"), reason="x")
    assert (await simulating.status(run.run_id))[0] == "running"
    await simulating.ask("TaskLost", task_token=token_hash(task.token), reason="it was killed")

    assert await simulating.status(run.run_id) == ("finished", "failed", "it was killed")
    await simulating.ask("TaskLost", task_token=token_hash(task.token), reason="once more")
    assert await simulating.status(run.run_id) == ("finished", "failed", "it was killed")
