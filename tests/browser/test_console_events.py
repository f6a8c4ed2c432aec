"""The pages of events, logs and errors in a browser: for everybody, on any screen, by keyboard."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from tests.browser.pages import SCREENS, check_page, complaints_of, open_page
from tests.browser.test_console import many_nodes
from tests.integration.consoles import Console, running_console

EMPTY = {"events": "/events?kind=federations"}
PAGES = {"events": "/events"}


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
    # Names of nodes in all scripts, whose nodes come and go.
    await console.gateway.superlink.database.execute("UPDATE node SET status = 'offline'")
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
    await expect(page.locator(".stream").get_by_text("Run started")).to_be_visible(timeout=20_000)

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
