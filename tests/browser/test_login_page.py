"""The login page in a browser: it works without scripts, on a phone, and by keyboard alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Page

from flower_nats.model.password import hash_password
from flower_nats.settings import TlsFiles
from flower_nats.wire import control_pb2 as control
from harness.certificates import create_server_certificates
from tests.integration.gateways import free_address, running_gateway
from tests.integration.superlinks import Superlink, running_superlink

ColorScheme = Literal["light", "dark"]

PASSWORD = "correct horse battery"

PICTURES = os.environ.get("FLOWER_NATS_TEST_PICTURES")
"""A folder for pictures of the pages, for people to look at."""


@dataclass(frozen=True)
class Login:
    """A login under way."""

    superlink: Superlink
    device_code: str
    url: str

    async def is_confirmed(self) -> bool:
        answer = await self.superlink.call(
            "Control",
            "GetAuthTokens",
            control.GetAuthTokensRequest(device_code=self.device_code),
            control.GetAuthTokensResponse,
        )
        return bool(answer.access_token)


@pytest.fixture
async def login(nats_url: str, pg_dsn: str, tmp_path: Path) -> AsyncIterator[Login]:
    made, address = create_server_certificates(tmp_path), free_address()
    base = f"https://{address.replace('127.0.0.1', 'localhost')}"
    async with (
        running_superlink(nats_url, pg_dsn, accounts=True) as superlink,
        running_gateway(
            superlink,
            nats_url,
            http_api_address=address,
            tls=TlsFiles(made.certificate, made.key, made.ca_certificate),
            login_url=base,
        ),
    ):
        hashed = hash_password(PASSWORD)
        await superlink.command("CreateAccount", name="ana", role="user", password_hash=hashed)
        details = await superlink.begin_login(address="192.0.2.7")
        url = f"{base}/v1/control/login{details.verification_uri_complete}"
        yield Login(superlink, details.device_code, url)


async def open_page(
    chrome: Browser, width: int, scheme: ColorScheme, *, scripts: bool = False
) -> Page:
    context = await chrome.new_context(
        ignore_https_errors=True,
        java_script_enabled=scripts,
        viewport={"width": width, "height": 720},
        color_scheme=scheme,
    )
    return await context.new_page()


async def keep(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=f"{PICTURES}/{name}.png")


async def is_too_wide(page: Page) -> bool:
    size = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return bool(size[0] > size[1])


@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1280, "dark")])
async def test_a_person_signs_in_by_keyboard_and_without_scripts(
    chrome: Browser, login: Login, width: int, scheme: ColorScheme
) -> None:
    page = await open_page(chrome, width, scheme)
    await page.goto(login.url)
    await keep(page, f"login-{width}-{scheme}")
    await page.get_by_label("Account").press_sequentially("ana")
    await page.keyboard.press("Tab")
    await page.keyboard.type("a wrong password")
    await page.keyboard.press("Enter")
    wrong = await page.get_by_role("alert").inner_text()
    await keep(page, f"login-wrong-{width}-{scheme}")
    still = await page.get_by_label("Account").input_value()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    heading = page.get_by_role("heading")
    await page.get_by_text("You are logged in").wait_for()
    await keep(page, f"login-done-{width}-{scheme}")
    await page.reload()

    assert "is wrong" in wrong
    assert still == "ana"
    assert await heading.inner_text() == "You are logged in"
    assert await login.is_confirmed()


async def test_the_page_fits_a_phone_and_its_policy_blocks_nothing_of_it(
    chrome: Browser, login: Login
) -> None:
    page = await open_page(chrome, 320, "light", scripts=True)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    await page.goto(login.url)
    too_wide = await is_too_wide(page)
    styled = await page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth")
    await page.get_by_role("button", name="refuse").click()
    await page.get_by_text("was refused").wait_for()

    assert not too_wide
    assert styled == "416px"
    # The browser also complains about the missing icon, which the policy does not forbid.
    assert [one for one in complaints if "Content Security Policy" in one] == []
    assert await page.context.cookies() == []


async def test_a_person_without_a_code_types_it(chrome: Browser, login: Login) -> None:
    page = await open_page(chrome, 375, "dark")
    address, _, code = login.url.partition("?code=")
    await page.goto(address)
    await keep(page, "login-code-375-dark")
    await page.get_by_label("Code").fill(code.replace("-", " ").lower())
    await page.keyboard.press("Enter")
    await page.get_by_text(code).wait_for()

    assert await page.get_by_label("Password").is_visible()
