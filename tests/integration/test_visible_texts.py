"""Texts of apps and owners do no harm to the terminals that show them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from flower_nats.broker.connection import Connection
from flower_nats.model.long_texts import LONGEST_TEXT
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from harness.channels import WireName
from tests.integration.gateways import Gateway, running_stack
from tests.integration.superlinks import Superlink

CLEARS = "\x1b[2J\x1b]0;title\x07\x9b6n"


@pytest.fixture
async def gateway(
    connection: Connection, nats_url: str, pg_dsn: str, wire: WireName
) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        yield gateway


async def test_control_characters_in_a_log_are_shown_and_colours_stay(gateway: Gateway) -> None:
    app = await gateway.server_app()
    lines = [f"a{CLEARS}b\n", "\x1b[92mINFO\x1b[0m: round 1\n", "50%\r100%\n"]
    await app.call("PushLogs", runtime.PushLogsRequest(logs=lines))
    await app.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="completed"))

    assert await gateway.log_of(app.run_id) == (
        "a\\x1b[2J\\x1b]0;title\\x07\\x9b6nb\n\x1b[92mINFO\x1b[0m: round 1\n50%\r100%\n"
    )


async def test_control_characters_in_lists_are_shown(gateway: Gateway) -> None:
    superlink: Superlink = gateway.superlink
    app = await gateway.server_app()
    node = await superlink.online_node(b"a key")
    # Such values may be old, or may come by a way that does not refuse them.
    for change in (
        "UPDATE node SET name = %(text)s, location = %(text)s",
        "UPDATE run SET fab_id = %(text)s, fab_version = %(text)s",
        "UPDATE task SET details = %(text)s",
        "UPDATE series SET description = %(text)s",
        "UPDATE app SET display_name = %(text)s, description = %(text)s, color = %(text)s",
    ):
        await superlink.database.execute(change, text=f"x{CLEARS}y")

    shown = [
        await superlink.call("Control", name, request, answer)
        for name, request, answer in (
            ("ListNodes", control.ListNodesRequest(), control.ListNodesResponse),
            ("ListRuns", control.ListRunsRequest(), control.ListRunsResponse),
            ("ListRuns", control.ListRunsRequest(run_id=app.run_id), control.ListRunsResponse),
            ("ListRunSeries", control.ListRunSeriesRequest(), control.ListRunSeriesResponse),
            (
                "ListApps",
                control.ListAppsRequest(federation_id="@none/default"),
                control.ListAppsResponse,
            ),
            (
                "ShowFederation",
                control.ShowFederationRequest(federation_name="@none/default"),
                control.ShowFederationResponse,
            ),
        )
    ]

    assert node.node_id in {one.node_id for one in shown[0].nodes_info}  # type: ignore[attr-defined]
    for one in shown:
        written = one.SerializeToString()
        assert b"x\\x1b[2J\\x1b]0;title\\x07\\x9b6ny" in written
        assert b"\x1b" not in written
        assert f"x{CLEARS}y".encode() not in written


async def test_the_reason_of_a_failure_has_a_length_that_lists_can_carry(gateway: Gateway) -> None:
    """An app may raise an exception with a model in its text."""
    superlink: Superlink = gateway.superlink
    apps = [await gateway.server_app() for _ in range(2)]
    reason = f"ValueError: {15_000_000 * 'ä'} is too long"
    with capture_logs() as logs:
        for app in apps:
            await app.call(
                "PushTaskOutput",
                runtime.PushTaskOutputRequest(sub_status="failed", details=reason),
            )

    listed = await superlink.call(
        "Control", "ListRuns", control.ListRunsRequest(), control.ListRunsResponse
    )
    for app in apps:
        details = listed.run_dict[app.run_id].status.details
        assert details.startswith("ValueError: ä")
        assert details.endswith("ä is too long")
        assert f"the whole text has {len(reason):,} characters" in details
        assert len(details.encode()) <= LONGEST_TEXT
    assert listed.ByteSize() < 3 * LONGEST_TEXT
    told = [one["details"] for one in logs if one["event"] == "run_finished"]
    assert len(told) == 2
    assert all(len(one.encode()) <= LONGEST_TEXT for one in told)
