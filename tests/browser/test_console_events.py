"""The pages of events, logs and errors in a browser: readable on any screen, usable by keyboard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from flower_nats.model.event import KINDS
from flower_nats.model.webhook import new_secret
from flower_nats.store.webhooks import Webhooks
from harness.children import PATIENCE
from tests.browser.pages import SCREENS, check_page, complaints_of, open_page
from tests.browser.test_console import many_nodes
from tests.integration.consoles import Console, running_console

EMPTY = {
    "events": "/events?kind=federations",
    "webhooks": "/webhooks",
    "logs": "/logs",
    "logs-none": "/logs?q=nothing",
    "errors": "/errors",
}
PAGES = {
    "events": "/events",
    "webhooks": "/webhooks",
    "logs": "/logs?q=line+999",
    "errors": "/errors",
}


@pytest.fixture
async def console(nats_url: str, pg_dsn: str) -> AsyncIterator[Console]:
    async with running_console(nats_url, pg_dsn) as console:
        yield console


async def test_pages_are_for_everybody_on_any_screen(chrome: Browser, console: Console) -> None:
    page = await open_page(chrome, *SCREENS[-1], f"http://{console.address}")
    for name, path in EMPTY.items():
        await page.goto(path)
        await expect(page.locator(".empty").first).to_be_visible()
        await check_page(page, f"console-empty-{name}")
    await many_nodes(console, rounds=4, nodes=40)
    # Events of nodes with names in many scripts: the nodes go offline and come back.
    await console.gateway.superlink.database.execute("UPDATE node SET status = 'offline'")
    for number in range(3):
        await Webhooks(console.gateway.superlink.database).add(
            f"http://127.0.0.1:1/{number}", new_secret(), list(KINDS), None, "none"
        )
    await console.gateway.server_app()
    async with asyncio.timeout(PATIENCE):
        while not (await console.json("/webhooks.json"))["troubles"]:
            await asyncio.sleep(0.1)
    for width, scheme in SCREENS:
        page = await open_page(chrome, width, scheme, f"http://{console.address}")
        for name, path in PAGES.items():
            await page.goto(path)
            await expect(page.locator("main img")).to_have_count(0)
            await check_page(page, f"console-{name}-{width}-{scheme}")


async def test_events_come_by_themselves_and_are_filtered_by_keyboard(
    chrome: Browser, console: Console
) -> None:
    page = await open_page(chrome, 1280, "light", f"http://{console.address}")
    await page.goto("/events")
    app = await console.gateway.server_app()
    await expect(page.locator(".stream").get_by_text("Run started")).to_be_visible()

    await page.locator("#filter-kind").focus()
    await page.keyboard.type("all of ru")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")

    await page.wait_for_url("**/events?kind=runs&federation=")
    await expect(page.locator(".stream li")).to_have_count(1)
    await page.locator(".stream a").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/runs/{app.run_id}")
    assert complaints_of(page) == []


async def test_a_line_is_found_and_opened_by_keyboard(chrome: Browser, console: Console) -> None:
    run_id = await many_nodes(console, rounds=1, nodes=40)
    page = await open_page(chrome, 375, "dark", f"http://{console.address}")
    await page.goto("/logs")
    await page.locator("#words").focus()
    await page.keyboard.type("LINE 9876")
    await page.keyboard.press("Enter")
    link = page.locator("#hits a").first
    await expect(link).to_be_visible()
    await link.focus()
    await page.keyboard.press("Enter")

    await page.wait_for_url(f"**/runs/{run_id}/log?at=*")
    await expect(page.locator("#line")).to_contain_text("line 9876")
    await expect(page.locator("#line")).to_be_in_viewport()
    await check_page(page, "console-log-line")


async def test_a_webhook_is_added_and_tried_by_keyboard(chrome: Browser, console: Console) -> None:
    page = await open_page(chrome, 1280, "light", f"http://{console.address}")
    await page.goto("/webhooks")
    await page.locator("#webhook-url").focus()
    await page.keyboard.type("http://127.0.0.1:1/hook")
    await page.keyboard.press("Enter")
    await expect(page.locator("#secret")).to_contain_text("whsec_")
    await check_page(page, "console-webhook-added")
    await page.locator("#back").focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Send a test").focus()
    await page.keyboard.press("Enter")

    await expect(page.get_by_text("1 try: ConnectError")).to_be_visible()
    await page.get_by_role("button", name="Remove").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Nobody is told of events yet.")).to_be_visible()
    assert complaints_of(page) == []
