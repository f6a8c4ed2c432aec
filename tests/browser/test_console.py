"""The console in a browser: everybody can read it, on any screen, with any names in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from flwr.app import RecordDict
from playwright.async_api import Browser, expect

from flower_nats.wire import common_pb2 as common
from flower_nats.wire import runtime_pb2 as runtime
from harness.children import PATIENCE
from harness.messages import instruction, reply
from tests.browser.pages import SCREENS, ColorScheme, check_page, complaints_of, open_page
from tests.integration.consoles import Console, running_console
from tests.integration.superlinks import running_superlink

NASTY = "<img src=x onerror=alert(1)> \x1b]0;title\x07"
LONG = "St. Mary's and St. Joseph's University Hospital of the Northern Provinces, " * 3
NAMES = (LONG, "مستشفى الجامعة", "東京大学医学部附属病院", "<b>bold</b>", "x" * 200)


LINES = tuple(f"{NASTY} line {number}\n" for number in range(10_000))


@pytest.fixture
async def console(nats_url: str, pg_dsn: str) -> AsyncIterator[Console]:
    async with running_console(nats_url, pg_dsn) as console:
        yield console


async def many_nodes(
    console: Console,
    *,
    rounds: int,
    nodes: int,
    names: tuple[str, ...] = NAMES,
    reason: str = f"{NASTY} CUDA out of memory: " + "tried to allocate " * 30,
    log: Sequence[str] = LINES,
) -> int:
    """Return a run with a history of so many exchanges, of nodes with names in many scripts.

    The run has four more rounds to come, and its numbers on the pages fit together.
    """
    app = await console.gateway.server_app()
    database = console.gateway.superlink.database
    await database.execute(
        """
        INSERT INTO node (
            node_id, public_key, owner_id, owner_name, status, heartbeat_interval, name, online_until,
            registered_at, key_since, last_activated_at, version, address, location, clock_ahead
        )
        SELECT 10000 + node, int8send(node), '<id:none>', 'none', 'online', 30,
            (%(names)s::text[])[1 + node], now() + interval '86 s',
            now() - interval '40 days', now() - interval '40 days', now() - interval '3 days',
            '1.42.0', '192.0.2.' || node %% 250, '45.76,4.84',
            CASE node WHEN 7 THEN 3.4 ELSE (node %% 11) / 40.0 END
        FROM generate_series(0, %(nodes)s - 1) AS node
        """,
        names=list(names),
        nodes=nodes,
    )
    await database.execute(
        """
        INSERT INTO exchange
        SELECT %(run_id)s, 1000 * round + node, 10000 + node, 1 + round, 'train', '',
            now() - make_interval(secs => 10 * (%(rounds)s - round) + 5),
            now() - make_interval(secs => 10 * (%(rounds)s - round) + 4),
            CASE WHEN round < %(rounds)s - 1 OR node %% 7 > 0
                THEN now() - make_interval(
                    secs => 10 * (%(rounds)s - round) + 4 - (node %% 13) / 2.0
                ) END,
            CASE WHEN round = %(rounds)s - 1 AND node %% 7 = 0 THEN ''
                WHEN (round + node) %% 17 = 0 THEN 'failed' ELSE 'answered' END,
            CASE WHEN (round + node) %% 17 = 0 THEN %(reason)s ELSE '' END,
            4000000 + 1000 * node, 4100000 + 1000 * node,
            CASE WHEN (round + node) %% 17 > 0 AND (round < %(rounds)s - 1 OR node %% 7 > 0)
                THEN jsonb_build_object(
                    'train_loss', 1.8 / (1 + 0.3 * round) + ((node * 37) %% 23) / 60.0
                        + (CASE WHEN node = 5 THEN 0.4 ELSE 0 END),
                    'num-examples', 100 + 10 * node
                ) END
        FROM generate_series(0, %(rounds)s - 1) AS round, generate_series(0, %(nodes)s - 1) AS node
        """,
        run_id=app.run_id,
        reason=reason,
        rounds=rounds,
        nodes=nodes,
    )
    await database.execute(
        """
        INSERT INTO node_presence
        SELECT 10005, now() - make_interval(hours => 72 + 5 * at),
            CASE at %% 2 WHEN 0 THEN 'online' ELSE 'offline' END
        FROM generate_series(0, 8) AS at
        """
    )
    await database.execute(
        """
        UPDATE run SET (created_at, override_config, bytes_sent, bytes_recv, clientapp_runtime) = (
            SELECT now() - make_interval(secs => 10 * %(rounds)s + 11), %(config)s::bytea,
                sum(bytes_sent), sum(bytes_recv),
                extract(epoch FROM sum(answered_at - put_out_at))
            FROM exchange WHERE run_id = %(run_id)s
        ) WHERE run_id = %(run_id)s
        """,
        run_id=app.run_id,
        rounds=rounds,
        config=common.Run(
            override_config={"rounds": common.Scalar(sint64=rounds + 4)}
        ).SerializeToString(),
    )
    await database.execute(
        """
        UPDATE task SET pending_at = now() - make_interval(secs => 10 * %(rounds)s + 11),
            starting_at = now() - make_interval(secs => 10 * %(rounds)s + 10),
            running_at = now() - make_interval(secs => 10 * %(rounds)s + 9)
        WHERE run_id = %(run_id)s
        """,
        run_id=app.run_id,
        rounds=rounds,
    )
    await app.call("PushLogs", runtime.PushLogsRequest(run_id=app.run_id, logs=log))
    return app.run_id


async def test_pages_without_anything_are_for_everybody(chrome: Browser, console: Console) -> None:
    page = await open_page(chrome, *SCREENS[-1], f"http://{console.address}")
    paths = {"overview": "/", "runs": "/runs", "nodes": "/nodes", "login": "/login"}
    for name, path in paths.items():
        await page.goto(path)
        await check_page(page, f"console-empty-{name}")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [*(pytest.param(*one, marks=pytest.mark.long) for one in SCREENS[:-1]), SCREENS[-1]],
)
async def test_pages_with_all_sorts_of_names_are_for_everybody_on_any_screen(
    chrome: Browser, console: Console, width: int, scheme: ColorScheme
) -> None:
    run_id = await many_nodes(console, rounds=30, nodes=40)
    pages = {
        "overview": "/",
        "runs": "/runs",
        "nodes": "/nodes",
        "run": f"/runs/{run_id}",
        "metrics": f"/runs/{run_id}/metrics",
        "node": "/nodes/10005",
        "stop": f"/runs/{run_id}/stop",
        "missing": "/runs/7",
    }
    page = await open_page(chrome, width, scheme, f"http://{console.address}")
    for name, path in pages.items():
        await page.goto(path)
        if name == "run":
            await expect(page.locator("#log")).to_contain_text("line 9999")
            assert await page.locator("#log img").count() == 0
        if name == "metrics":
            await page.locator("#metrics[data-drawn] .u-over").hover(position={"x": 200, "y": 90})
            await expect(page.locator(".tip-line")).to_contain_text("mean")
        await check_page(page, f"console-{name}-{width}-{scheme}")


@pytest.mark.long
async def test_a_thousand_nodes_and_a_hundred_rounds_are_drawn(
    chrome: Browser, console: Console
) -> None:
    run_id = await many_nodes(console, rounds=100, nodes=1000)
    page = await open_page(chrome, 1280, "light", f"http://{console.address}")
    await page.goto(f"/runs/{run_id}")

    await expect(page.get_by_text("Nodes: 1000, 100 shown")).to_be_visible()
    drawn = "document.querySelector('#timeline canvas').getBoundingClientRect().height > 500"
    await page.wait_for_function(drawn)
    await check_page(page, "console-thousand")
    async with asyncio.timeout(PATIENCE):
        # A redrawn chart shows its tooltip only after the pointer moves.
        while "round" not in (await page.locator(".tip").text_content() or ""):
            await page.locator("#timeline canvas").hover(position={"x": 300, "y": 90})
            await page.locator("#timeline canvas").hover(position={"x": 400, "y": 100})
    await page.goto(f"/runs/{run_id}/metrics")
    await expect(page.locator("#metrics[data-drawn] canvas")).to_be_visible()
    await expect(page.get_by_text("50 of 1000")).to_be_visible()
    await check_page(page, "console-thousand-metrics")
    await page.goto("/nodes")
    await expect(page.get_by_text("1000 of 1000 SuperNodes online")).to_be_visible()
    await check_page(page, "console-thousand-nodes")


async def test_a_run_is_found_and_stopped_by_keyboard(chrome: Browser, console: Console) -> None:
    app = await console.gateway.server_app()
    page = await open_page(chrome, 1280, "light", f"http://{console.address}")
    await page.goto("/runs?state=running")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Go to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    link = page.locator(f"#run-{app.run_id}")
    for _ in range(20):
        if await link.evaluate("one => one === document.activeElement"):
            break
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/runs/{app.run_id}")
    await page.locator("#stop").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Stop the run").focus()
    await page.keyboard.press("Enter")

    await expect(page.locator("h1 .state")).to_have_text("stopped")
    assert complaints_of(page) == []


async def test_a_page_goes_on_by_itself(
    chrome: Browser, console: Console, nats_url: str, pg_dsn: str
) -> None:
    node, app = await console.gateway.node(), await console.gateway.server_app()
    page = await open_page(chrome, 1280, "light", f"http://{console.address}")
    await page.goto(f"/runs/{app.run_id}")
    await expect(page.get_by_text("has sent nothing to nodes yet")).to_be_visible()
    question = instruction(app.run_id, node.node_id)
    await app.send(question)
    await expect(page.get_by_text("Round 1 waits for 1 of 1 node,")).to_be_visible()
    await node.pull()
    await node.confirm(app.run_id, question.message_id)
    await node.send(reply(question, RecordDict()))
    await expect(page.get_by_text("Round 1 was answered by 1 of 1 node.")).to_be_visible()

    superlink = console.gateway.superlink
    superlink.stop.set()
    await superlink.running
    await expect(page.get_by_text("No superlink answers. Trying again…")).to_be_visible()
    await expect(page.get_by_text("Round 1 was answered by 1 of 1 node.")).to_be_visible()
    assert complaints_of(page) == []

    # A page that is opened without a superlink is complete once a superlink is back.
    await page.goto("/runs", timeout=30_000)
    await expect(page.get_by_role("heading", level=1)).to_have_text("No superlink answers.")
    async with running_superlink(nats_url, pg_dsn):
        await expect(page.locator(f"#run-{app.run_id}")).to_be_visible(timeout=30_000)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
        await expect(page.locator("#filter-state")).to_be_visible()
