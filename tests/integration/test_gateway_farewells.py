"""Answers to a task's process after its output, and to a SuperNode that has unregistered.

Both are ending. A refusal would make them interrupt themselves. A stock ServerApp that is
interrupted in its exit handlers hangs for ever.
"""

from __future__ import annotations

from google.protobuf.message import Message

from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.request_id import REQUEST_ID, new_request_id
from harness.channels import WireName
from harness.clients import ServerApp, SuperNode
from tests.integration.gateways import refusal, running_pair, running_stack

OUTPUT = runtime.PushTaskOutputRequest(sub_status="completed")
LATE_LINES = runtime.PushLogsRequest(logs=["late\n"])


async def test_the_last_lines_and_heartbeats_of_a_process_are_taken(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        app = await gateway.server_app()
        await app.call("PushLogs", runtime.PushLogsRequest(logs=["in time\n"]))
        await app.call("PushTaskOutput", OUTPUT)

        beat = await app.call("SendTaskHeartbeat", runtime.SendTaskHeartbeatRequest())
        await app.call("PushLogs", LATE_LINES)

        assert beat.success
        assert await gateway.log_of(app.run_id) == "in time\nlate\n"


async def test_the_output_of_a_process_is_answered_by_another_gateway_if_the_first_one_died(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    """A balancer repeats the call when the task has already ended."""
    async with running_pair(nats_url, pg_dsn, wire) as (first, second):
        app = await first.server_app()
        metadata = [("flwr-task-token", app.token), (REQUEST_ID, new_request_id())]

        for gateway in (first, second):
            await gateway.call("Runtime", "PushTaskOutput", OUTPUT, metadata)

        assert await first.superlink.status(app.run_id) == ("finished", "completed", "")


async def test_a_process_that_has_finished_its_task_can_do_nothing_else(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        app = await gateway.server_app()
        await app.call("PushTaskOutput", OUTPUT)

        await app.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="failed"))
        assert await gateway.superlink.status(app.run_id) == ("finished", "completed", "")
        await refused(app, "GetNodes", runtime.GetNodesRequest())
        await refused(app, "PullTaskInput", runtime.PullTaskInputRequest())


async def test_a_process_has_only_a_while_to_end(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        app = await gateway.server_app()
        await app.call("PushTaskOutput", OUTPUT)
        await gateway.superlink.database.execute(
            "UPDATE task SET finished_at = finished_at - interval '1 hour'"
        )

        await refused(app, "PushLogs", LATE_LINES)


async def test_a_process_whose_run_was_stopped_is_told_to_end(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        app = await gateway.server_app()
        await gateway.call("Control", "StopRun", control.StopRunRequest(run_id=app.run_id))

        await refused(app, "PushLogs", LATE_LINES)
        await refused(app, "SendTaskHeartbeat", runtime.SendTaskHeartbeatRequest())
        await refused(app, "PushTaskOutput", OUTPUT)


async def test_a_node_that_unregisters_is_answered_by_another_gateway_if_the_first_one_died(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_pair(nats_url, pg_dsn, wire) as (first, second):
        node, other = await first.node(), await first.node()
        request = fleet.UnregisterNodeFleetRequest(node_id=node.node_id)

        await node.call("UnregisterNode", request)
        node.gateway = second
        await node.call("UnregisterNode", request)

        await refused(node, "PullMessages", fleet.PullMessagesRequest(node=node.node))
        await refused(other, "UnregisterNode", request)


async def refused(client: ServerApp | SuperNode, method: str, request: Message) -> None:
    """Make a call that must be refused as unauthenticated."""
    assert (await refusal(client.call(method, request))).outcome is Outcome.UNAUTHENTICATED
