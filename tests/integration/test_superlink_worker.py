"""A superlink as a process: its answers, its background work, and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.hints import Wakes
from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.streams import ensure_streams
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.model.errors import ErrorCode
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.connection import Database
from flower_nats.superlink.wiring import handlers, watches
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from harness.waiting import until
from tests.integration.superlinks import (
    Superlink,
    refused,
    running_superlink,
    silent_superlinks,
)

SERVED_BY_GATEWAYS = {
    ("Fleet", "SendNodeHeartbeat"),
    ("Fleet", "PullMessages"),
    ("Fleet", "PushMessages"),
    ("Fleet", "PushObject"),
    ("Fleet", "PullObject"),
    ("Fleet", "ConfirmMessageReceived"),
    ("Runtime", "PushObject"),
    ("Runtime", "PullObject"),
    ("Runtime", "ConfirmMessageReceived"),
    ("Runtime", "PushLogs"),
    ("Runtime", "PushMessages"),
    ("Control", "StreamLogs"),
    ("Control", "StreamRunEvents"),
}

INTERNAL = {
    "ResolveNode", "ResolveToken", "RunState", "CheckNodes", "Heartbeats", "ReserveNonce",
    "Usage", "TaskEvents", "Announce", "Leave", "SuperexecHosts", "TaskLost", "Exchanges",
    "FollowRun", "Download", "LoginUnderWay", "ConfirmLogin", "RefuseLogin",
}  # fmt: skip

CONSOLE = {
    "Status", "Runs", "Run", "Timeline", "Log", "Node", "Nodes", "Events", "Metrics", "MetricRows",
    "Errors", "LogAround", "SearchLogs", "Webhooks", "AddWebhook", "RemoveWebhook", "TestWebhook",
}  # fmt: skip

OPERATOR = {
    "Quotas", "SetQuota", "SetMemberRole", "RotateNodeKey",
    "AuditChain",
    "AuditEvents",
    "DeleteRun", "Status", "RunReport", "UnfinishedRuns", "EndRuns", "CloseToRuns",
    "AddAppSignature", "CreateAccount", "ListAccounts", "DisableAccount", "EnableAccount",
    "SetAccountRole", "SetAccountPassword", "CreateAccountToken", "ListAccountTokens",
    "RevokeAccountToken", "Webhooks", "AddWebhook", "RemoveWebhook", "TestWebhook",
}  # fmt: skip


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


async def test_every_rpc_is_served_by_a_superlink_or_a_gateway(
    connection: Connection, pg_dsn: str
) -> None:
    settings = SuperlinkSettings(nats=(), database=pg_dsn)

    database = Database(pg_dsn)

    served = handlers(settings, database, connection, watches(settings, database, connection))

    own = {"Internal": INTERNAL, "Operator": OPERATOR, "Console": CONSOLE}
    assert {key for key in served if key[0] not in own} == set(BY_NAME) - SERVED_BY_GATEWAYS
    for service, names in own.items():
        assert {name for one, name in served if one == service} == names


HERE = {"federation_name": "@none/default"}


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        ("CreateFederation", {}, 12),
        ("ArchiveFederation", HERE, 10),
        ("ArchiveFederation", {}, 12),
        ("SetFederationIcon", HERE, 1),
        ("SetFederationIcon", {}, 12),
        ("AddNodeToFederation", HERE, 28),
        ("AddNodeToFederation", {}, 12),
        ("RemoveNodeFromFederation", {"federation_name": "@none/other"}, 25),
        ("RemoveAccountFromFederation", HERE, 10),
        ("CreateInvitation", HERE, 10),
        ("CreateInvitation", {"federation_name": "@none/other"}, 2),
        ("AcceptInvitation", HERE, 7),
        ("RejectInvitation", HERE, 7),
        ("RevokeInvitation", HERE, 7),
        ("ConfigureSimulationFederation", HERE, 2),
        ("GetAuthTokens", {"device_code": "x"}, 19),
        ("RefreshAuthTokens", {"refresh_token": "x"}, 36),
        ("StartAutomation", {}, 42),
        ("ListAutomations", {"federation": "@none/other"}, 25),
        ("ListConnectors", {"federation": "@none/other"}, 25),
        ("BeginConnectorOAuth", {"connector_ref": "mail"}, 39),
        ("CompleteConnectorOAuth", {}, 39),
        ("DisconnectConnector", {"connector_ref": "mail"}, 39),
    ],
)
async def test_what_is_not_here_is_refused_as_by_flowers_own_server(
    superlink: Superlink, method: str, fields: dict[str, str], code: int
) -> None:
    rpc = BY_NAME[("Control", method)]

    with refused(ErrorCode(code)):
        await superlink.call("Control", method, rpc.request(**fields), rpc.response)


async def test_a_node_without_an_account_is_in_the_default_federation_already(
    superlink: Superlink,
) -> None:
    node = await superlink.online_node()
    request = control.AddNodeToFederationRequest(**HERE, node_id=node.node_id)

    with refused(ErrorCode.SUPERNODE_ALREADY_IN_FEDERATION):
        await superlink.call(
            "Control", "AddNodeToFederation", request, control.AddNodeToFederationResponse
        )


async def test_the_cli_hears_that_there_is_no_login(superlink: Superlink) -> None:
    details = await superlink.call(
        "Control",
        "GetLoginDetails",
        control.GetLoginDetailsRequest(),
        control.GetLoginDetailsResponse,
    )

    assert details == control.GetLoginDetailsResponse(authn_type="noop")


async def test_there_are_no_automations_and_connectors(superlink: Superlink) -> None:
    automations = await superlink.call(
        "Control",
        "ListAutomations",
        control.ListAutomationsRequest(),
        control.ListAutomationsResponse,
    )
    connectors = await superlink.call(
        "Control",
        "ListConnectors",
        control.ListConnectorsRequest(),
        control.ListConnectorsResponse,
    )

    assert not automations.automations
    assert not connectors.connectors


async def test_the_status_shows_runs_nodes_replicas_and_what_is_durable(
    superlink: Superlink,
) -> None:
    await superlink.online_node()
    await superlink.start_run()
    await superlink.announce_gateway()

    status = await superlink.command("Status")

    assert status["runs"] == {"pending": 1}
    assert status["nodes"] == {"online": 1}
    assert sorted(replica["kind"] for replica in status["replicas"]) == ["gateway", "superlink"]
    assert status["durability"]["database"]["synced"] is True
    assert status["durability"]["broker"]["replicas"] == 1
    await superlink.ask("Leave", kind="gateway", id="gateway")
    assert len((await superlink.command("Status"))["replicas"]) == 1


async def test_usage_adds_up(superlink: Superlink) -> None:
    runs = [(await superlink.start_run()).run_id for _ in range(2)]

    await superlink.ask("Usage", runs=[[runs[0], 10, 20, 0.5], [runs[1], 1, 2, 0.0]])
    await superlink.ask("Usage", runs=[[runs[0], 10, 20, 0.5], [runs[0], 1, 0, 0.0], [5, 1, 1, 1]])
    await superlink.ask("Usage", runs=[])

    listed = await superlink.call(
        "Control", "ListRuns", control.ListRunsRequest(), control.ListRunsResponse
    )
    first, second = (listed.run_dict[run_id] for run_id in runs)
    assert (first.bytes_sent, first.bytes_recv, first.clientapp_runtime) == (21, 40, 1.0)
    assert (second.bytes_sent, second.bytes_recv, second.clientapp_runtime) == (1, 2, 0.0)


async def test_a_malformed_question_is_refused(superlink: Superlink) -> None:
    with refused(ErrorCode.MALFORMED_REQUEST):
        await superlink.ask("RunState")
    with refused(ErrorCode.MALFORMED_REQUEST):
        await superlink.rpc.call("Internal", "RunState", b"\xc1", patience=5)
    with refused(ErrorCode.MALFORMED_REQUEST):
        await superlink.rpc.call("Internal", "RunState", b"\x01", patience=5)


async def test_a_nonce_is_used_once(superlink: Superlink) -> None:
    question = {"namespace": "superexec", "nonce": "n", "expires_at": time.time() + 300}

    assert await superlink.ask("ReserveNonce", holder="a", **question) == {"reserved": True}
    assert await superlink.ask("ReserveNonce", holder="a", **question) == {"reserved": True}
    assert await superlink.ask("ReserveNonce", holder="b", **question) == {"reserved": False}


async def test_silent_nodes_go_offline_without_anybody_asking(superlink: Superlink) -> None:
    node = await superlink.online_node()
    run = await superlink.start_run()
    await superlink.announce_gateway()
    await superlink.database.execute("UPDATE node SET online_until = now()")

    async def is_offline() -> bool:
        answer = await superlink.ask("CheckNodes", run_id=run.run_id, node_ids=[node.node_id])
        return bool(answer["offline"])

    await until(is_offline)


async def test_a_claimed_task_that_does_not_start_is_pending_again(superlink: Superlink) -> None:
    run = await superlink.start_run()
    task = await superlink.claim(run.run_id)
    await superlink.announce_gateway()
    await superlink.database.execute("UPDATE task SET active_until = now()")

    async def is_pending() -> bool:
        return (await superlink.status(run.run_id))[0] == "pending"

    await until(is_pending)
    with refused(ErrorCode.TASK_START_FAILED):
        await task.pull_input()
    again = await superlink.claim(run.run_id)
    await again.pull_input()


async def test_a_run_whose_serverapp_is_silent_fails_with_all_its_tasks(
    superlink: Superlink,
) -> None:
    task = await superlink.running_task()
    await superlink.announce_gateway()
    await superlink.database.execute(
        "INSERT INTO task (task_id, run_id, type, status) VALUES (9, %(run)s, 'x', 'pending')",
        run=task.run_id,
    )
    await superlink.database.execute(
        "UPDATE task SET active_until = now() WHERE status = 'running'"
    )

    async def has_failed() -> bool:
        return (await superlink.status(task.run_id))[0] == "finished"

    await until(has_failed)
    assert await superlink.status(task.run_id) == (
        "finished",
        "failed",
        "No heartbeat received from the task",
    )
    other = await superlink.database.fetch_one("SELECT * FROM task WHERE task_id = 9")
    assert other is not None
    assert other["details"] == "Task failed because the run expired"
    assert not await task.heartbeat()


async def test_a_task_created_while_its_run_was_finishing_finishes_too(
    superlink: Superlink,
) -> None:
    task = await superlink.running_task()
    await task.push_output()
    await superlink.database.execute(
        "INSERT INTO task (task_id, run_id, type, status) VALUES (9, %(run)s, 'x', 'pending')",
        run=task.run_id,
    )

    async def is_finished() -> bool:
        row = await superlink.database.fetch_one("SELECT status FROM task WHERE task_id = 9")
        return row is not None and row["status"] == "finished"

    await until(is_finished)


async def test_what_a_finished_run_leaves_in_the_broker_is_cleared(superlink: Superlink) -> None:
    task = await superlink.running_task()
    left = subjects.push(task.run_id, "ab", 0)
    await superlink.connection.store(left, b"late")
    await task.push_output()
    assert await superlink.connection.last(subjects.MESSAGES_STREAM, left) is None

    # Messages that arrive after the end of the run are removed as well.
    await superlink.connection.store(left, b"later")

    async def is_clear() -> bool:
        return await superlink.connection.last(subjects.MESSAGES_STREAM, left) is None

    await until(is_clear)


async def _holders(superlink: Superlink) -> set[str]:
    return {row["holder"] for row in await superlink.database.fetch_all("SELECT holder FROM lease")}


async def test_another_superlink_takes_over_when_one_ends(nats_url: str, pg_dsn: str) -> None:
    async with running_superlink(nats_url, pg_dsn) as first:
        node = await first.online_node()
        run = await first.start_run()

        async def works() -> bool:
            return bool(await _holders(first))

        await until(works)
        holders = await _holders(first)
        async with running_superlink(nats_url, pg_dsn) as second:
            first.stop.set()
            await first.running
            await second.announce_gateway()
            await second.database.execute("UPDATE node SET online_until = now()")

            async def is_offline() -> bool:
                answer = await second.ask("CheckNodes", run_id=run.run_id, node_ids=[node.node_id])
                return bool(answer["offline"])

            # The superlink gave its leases back: the other does not wait until they expire.
            assert not await _holders(second) & holders
            await until(is_offline)


async def test_a_superlink_ends_soon_and_finishes_what_it_has_in_hand(
    nats_url: str, pg_dsn: str
) -> None:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        calls = [asyncio.create_task(superlink.start_run()) for _ in range(20)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        superlink.stop.set()
        await superlink.running

        stored = await superlink.database.fetch_all("SELECT run_id FROM run")
        for call in calls:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        answered = {one.run_id for one in done if isinstance(one, control.StartRunResponse)}
        assert answered <= {row["run_id"] for row in stored}


async def test_a_database_that_restarts_is_waited_out(nats_url: str, tmp_path: Path) -> None:
    server = PostgresServer(tmp_path)
    dsn = await server.start()
    async with running_superlink(nats_url, dsn) as superlink:
        before = await superlink.start_run()
        await server.stop()
        waiting = asyncio.create_task(superlink.start_run())
        await server.start()

        after = await waiting

        listed = await superlink.call(
            "Control", "ListRuns", control.ListRunsRequest(), control.ListRunsResponse
        )
        assert set(listed.run_dict) == {before.run_id, after.run_id}
    await server.stop()


async def test_two_superlinks_share_the_work(
    nats_url: str, pg_dsn: str, connection: Connection
) -> None:
    await ensure_streams(connection)
    async with running_superlink(nats_url, pg_dsn) as one, running_superlink(nats_url, pg_dsn):
        client = RpcClient(one.connection)
        answers = await asyncio.gather(
            *(client.ask("RunState", run_id=number) for number in range(50))
        )

    assert answers == [{"status": None, "sub_status": "", "details": ""}] * 50


async def test_superlinks_that_say_nothing_keep_no_question_from_being_answered(
    nats_url: str, pg_dsn: str, connection: Connection
) -> None:
    async with (
        running_superlink(nats_url, pg_dsn) as one,
        silent_superlinks(connection, "RunState"),
    ):
        client, wakes = RpcClient(one.connection), Wakes(one.connection)
        wakes.on_superlink(client.note_superlink)
        await wakes.start()
        answers = await asyncio.gather(
            *(client.look_up("RunState", run_id=number) for number in range(50))
        )

    assert [answer["status"] for answer in answers] == [None] * 50
