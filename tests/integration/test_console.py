"""The console over HTTP: pages and JSON, the check of callers, and bad input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from flwr.app import RecordDict

from flower_nats.broker.connection import Connection
from flower_nats.broker.permissions import User
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from harness.children import PATIENCE
from harness.logins import as_user
from harness.messages import instruction, reply
from tests.integration.consoles import Console, console_of, running_console

NASTY = "<script>alert(1)</script> \x1b]0;title\x07 \u202e"


@pytest.fixture
async def console(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Console]:
    async with running_console(nats_url, pg_dsn) as console:
        yield console


async def test_pages_of_a_runtime_without_runs_and_nodes_say_what_to_do(console: Console) -> None:
    for path, words in (
        ("/", "No run is under way. Start one"),
        ("/runs", "No run was started here yet"),
        ("/nodes", "No SuperNode has connected yet"),
    ):
        answer = await console.http.get(path)
        assert answer.status_code == 200
        assert words in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_run_is_shown_with_its_rounds_by_node(console: Console) -> None:
    gateway = console.gateway
    nodes = [await gateway.node() for _ in range(3)]
    app = await gateway.server_app()
    for _ in range(2):
        questions = [instruction(app.run_id, node.node_id) for node in nodes]
        await app.send(*questions)
        for node, question in zip(nodes, questions, strict=True):
            await node.pull()
            await node.confirm(app.run_id, question.message_id)
            await node.send(reply(question, RecordDict()))
    path = f"/runs/{app.run_id}"
    async with asyncio.timeout(PATIENCE):
        while True:
            timeline = await console.json(f"{path}/timeline.json")
            if [one["answered"] for one in timeline["rounds"]] == [3, 3]:
                break
            await asyncio.sleep(0.1)

    assert timeline["type"] == "train"
    assert [one["name"] for one in timeline["rounds"]] == ["1", "2"]
    assert {one["states"] for one in timeline["nodes"]} == {"aa"}
    for one in timeline["nodes"]:
        assert all(0 <= taken <= ms for taken, ms in zip(one["taken_ms"], one["ms"], strict=True))
    assert sum(one["last_of"] for one in timeline["nodes"]) == 2
    page = (await console.http.get(path)).text
    assert "Round 2 was answered by 3 of 3 nodes." in page
    listed = await console.json("/runs.json?state=running")
    [run] = listed["runs"]
    assert run["round"] == {"name": "2", "type": "train", "sent": 3, "answered": 3, "failed": 0}
    assert (await console.json("/runs.json?state=failed"))["runs"] == []
    nodes_page = await console.json("/nodes.json")
    assert [one["exchanges"] for one in nodes_page["nodes"]] == [2, 2, 2]


async def test_a_node_is_shown_with_its_clock_its_key_and_when_it_came_and_went(
    console: Console,
) -> None:
    gateway = console.gateway
    node, app = await gateway.node(), await gateway.server_app()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await node.pull()
    await node.send(reply(question, RecordDict()))
    await node.call("DeactivateNode", fleet.DeactivateNodeRequest(node_id=node.node_id))
    await node.activate()
    await node.call(
        "SendNodeHeartbeat",
        fleet.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=30),
        offset=3.0,
    )
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await console.json(f"/nodes/{node.node_id}.json")
            if found["node"]["clock_ahead"] is not None and found["runs"]:
                break
            await asyncio.sleep(0.1)

    assert 2.0 < found["node"]["clock_ahead"] < 3.5
    assert found["node"]["key_since"] == found["node"]["registered_at"]
    assert [one["status"] for one in found["presence"]] == ["online", "offline", "online"]
    [run] = found["runs"]
    assert (run["run_id"], run["exchanges"], run["failed"]) == (str(app.run_id), 1, 0)
    page = (await console.http.get(f"/nodes/{node.node_id}")).text
    assert "s ahead" in page
    assert f"/nodes/{node.node_id}" in (await console.http.get("/nodes")).text


async def test_a_log_comes_in_pieces_and_does_nothing_to_the_page(console: Console) -> None:
    app = await console.gateway.server_app()
    await app.call("PushLogs", runtime.PushLogsRequest(run_id=app.run_id, logs=[f"{NASTY}\n"]))
    async with asyncio.timeout(PATIENCE):
        while not (piece := await console.json(f"/runs/{app.run_id}/log.json"))["text"]:
            await asyncio.sleep(0.05)

    assert piece["text"] == "<script>alert(1)</script> \\x1b]0;title\\x07 \u202e\n"
    after = await console.json(f"/runs/{app.run_id}/log.json?after={piece['position']}")
    assert after == {"text": "", "position": piece["position"]}


async def test_a_run_is_stopped_by_a_form_of_the_console_alone(console: Console) -> None:
    app = await console.gateway.server_app()
    path = f"/runs/{app.run_id}/stop"
    asked = await console.http.get(path)
    assert "cannot be taken up again" in asked.text

    for headers in (
        {},
        {"origin": "http://evil.example"},
        {"origin": f"http://{console.address}", "sec-fetch-site": "cross-site"},
    ):
        assert (await console.http.post(path, headers=headers)).status_code == 403
    status, _, _ = await console.gateway.superlink.status(app.run_id)
    assert status == "running"

    own = {"origin": f"http://{console.address}", "sec-fetch-site": "same-origin"}
    assert (await console.http.post(path, headers=own)).status_code == 303
    status, sub_status, _ = await console.gateway.superlink.status(app.run_id)
    assert (status, sub_status) == ("finished", "stopped")
    assert (await console.http.post(path, headers=own)).status_code == 409


async def test_a_name_that_somebody_points_here_is_refused(console: Console) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.2", ""):
        answer = await console.http.get("/runs.json", headers={"host": host})
        assert answer.status_code == 421


_MANY = "9" * 5_000

NOT_THERE = [
    "/runs/1",
    "/runs/1.json",
    "/runs/18446744073709551616",
    "/runs/-1",
    "/runs/abc",
    "/runs/²",
    "/runs/1/timeline.json",
    "/runs/1/log.json",
    "/runs/1/stop",
    "/nodes/1",
    "/nodes/1.json",
    "/nodes/abc",
    # More digits than Python converts to a number.
    *(f"/{path}" for path in (f"runs/{_MANY}", f"runs/{_MANY}/log", f"nodes/{_MANY}")),
    "/nothing",
    "/static/../app.py",
    "/static/%2e%2e/app.py",
]

NO_SENSE = [
    "state=<b>",
    "page=-1",
    "page=99999999999999999999",
    "text=%00%27%22<b>",
    "text=x" * 999,
]


async def test_bad_addresses_are_told_from_good_ones(console: Console) -> None:
    for path in NOT_THERE:
        answer = await console.http.get(path)
        assert answer.status_code == 404, path
        assert "Traceback" not in answer.text
    for query in NO_SENSE:
        answer = await console.http.get(f"/runs?{query}")
        assert answer.status_code == 200, query
        assert "<b>" not in answer.text


async def test_without_a_superlink_a_page_says_so(console: Console) -> None:
    superlink = console.gateway.superlink
    superlink.stop.set()
    await superlink.running

    paths = ("/runs", "/events", "/webhooks", "/logs?q=word", "/errors")
    of_data = [path.replace("?", ".json?") if "?" in path else f"{path}.json" for path in paths]
    pages, data = await asyncio.gather(
        asyncio.gather(*map(console.http.get, paths)),
        asyncio.gather(*map(console.http.get, of_data)),
    )

    assert [one.status_code for one in (*pages, *data)] == [503] * 10
    for page, as_data in zip(pages, data, strict=True):
        assert "No superlink answers." in page.text
        assert as_data.json()["error"] == "No superlink answers."


async def test_a_console_with_the_login_of_somebody_else_says_which_one_it_needs(
    console: Console, nats_url: str
) -> None:
    async with console_of(as_user(nats_url, User.OPERATOR)) as other:
        page = await other.get("/runs")
        data = await other.get("/runs.json")
    async with console_of(as_user(nats_url, User.CONSOLE)) as right:
        good = await right.get("/runs")

    assert page.status_code == data.status_code == 502
    assert "nats://console:PASSWORD@HOST:4222" in page.text
    assert data.json()["error"] == "NATS does not let this console ask superlinks."
    assert good.status_code == 200


async def test_a_thousand_nodes_and_a_hundred_rounds_are_one_page(console: Console) -> None:
    app = await console.gateway.server_app()
    await console.gateway.superlink.database.execute(
        """
        INSERT INTO exchange
        SELECT %(run_id)s, 1000 * round + node, 10000 + node, 1 + round, 'train', '',
            now() - make_interval(secs => 1000 - 10 * round),
            now() - make_interval(secs => 999 - 10 * round),
            now() - make_interval(secs => 998 - 10 * round - node / 1000.0), 'answered', '', 10, 20,
            jsonb_build_object('loss', node / 1000.0, 'num-examples', 1e308)
        FROM generate_series(0, 99) AS round, generate_series(0, 999) AS node
        """,
        run_id=app.run_id,
    )

    timeline = await console.json(f"/runs/{app.run_id}/timeline.json")
    page = await console.http.get(f"/runs/{app.run_id}")
    plot = await console.http.get(f"/runs/{app.run_id}/metrics/plot.json")
    metrics = await console.http.get(f"/runs/{app.run_id}/metrics")

    assert timeline["nodes_in_all"] == 1000
    assert timeline["rounds_in_all"] == 100
    assert len(timeline["nodes"]) == 100
    assert max(len(one.content) for one in (page, plot, metrics)) < 200_000
    found = plot.json()
    spread = [found[name][0] for name in ("least", "low", "middle", "high", "most")]
    assert spread == [0.0, 0.099, 0.4995, 0.899, 0.999]
    assert found["mean"][99] == pytest.approx(0.4995)
    assert (len(found["nodes"]), found["nodes_in_all"]) == (50, 1000)
    assert {found["nodes"][at]["node_id"] for at in (0, 1)} == {"10000", "10999"}
