"""The system's Chromium for tests, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright, expect

from harness.children import PATIENCE

expect.set_options(timeout=1000 * PATIENCE)

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Return the path of Chromium. Without Chromium the test is skipped; in CI it fails."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    reason = "There is no Chromium on this machine: `apt-get install chromium` brings one."
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
async def chrome() -> AsyncIterator[Browser]:
    """Run a Chromium that ends with the test."""
    path = chromium()
    # Chromium's sandbox does not start as root, and tests in containers run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        await browser.close()
