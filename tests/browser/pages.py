"""Checks for all pages: everybody can read them, on any screen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, Page

from harness.children import PATIENCE

ColorScheme = Literal["light", "dark"]

PICTURES = os.environ.get("FLOWER_NATS_TEST_PICTURES")
"""A folder for pictures of the pages, for people to look at."""

SCREENS: list[tuple[int, ColorScheme]] = [(1280, "light"), (1280, "dark"), (375, "light")]

_AXE = Path(__file__).parent / "vendor" / "axe.min.js"


async def open_page(chrome: Browser, width: int, scheme: ColorScheme, base: str) -> Page:
    """Open a window; `complaints_of` returns the browser's complaints about it."""
    context = await chrome.new_context(
        base_url=base, viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    context.set_default_timeout(1000 * PATIENCE)
    page = await context.new_page()
    complaints: list[str] = []
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    _complaints[page] = complaints
    return page


_complaints: dict[Page, list[str]] = {}


def complaints_of(page: Page) -> list[str]:
    """Return the browser's complaints: failed scripts, and violations of the security policy."""
    # An answer with an error is not a complaint: pages can handle it.
    answers = ("Failed to load resource", "Response Status Error Code")
    return [one for one in _complaints[page] if not one.startswith(answers)]


async def check_page(page: Page, name: str) -> None:
    """Check that a page fits its window and that axe finds no violation; keep a picture."""
    if PICTURES:
        await page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)
    size = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1], f"{name} is {size[0]} wide in a window of {size[1]}"
    await page.evaluate(_AXE.read_text())
    found: dict[str, Any] = await page.evaluate("axe.run()")
    blamed = [
        (one["id"], node["html"][:200], node["failureSummary"])
        for one in found["violations"]
        for node in one["nodes"]
    ]
    assert blamed == [], f"{name}: {blamed}"
    assert complaints_of(page) == [], f"{name}: {complaints_of(page)}"
