"""The console of `flower-nats up` during a real run, while its gateway and superlink are killed.

The short form is `test_a_page_goes_on_by_itself`: its superlink runs in the process of the test.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from flower_nats_cli.datadir import DataDir
from harness.environment import free_port
from tests.browser.pages import check_page, complaints_of, open_page
from tests.e2e.federation import OVER_HTTP, Federation
from tests.e2e.servers import STOCK, ServerOptions, ServerUnderTest, running_server

pytestmark = pytest.mark.skipif(STOCK, reason="stock has no console")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    options = ServerOptions(console=f"127.0.0.1:{free_port()}")
    with running_server(tmp_path_factory.mktemp("console"), options) as server:
        yield server


@pytest.fixture(scope="module")
def federation(server: ServerUnderTest) -> Iterator[Federation]:
    clients = Federation(server, server.folder / "clients")
    yield clients
    clients.close()


@pytest.mark.long
async def test_a_run_is_followed_through_kills_of_gateway_and_superlink(
    chrome: Browser, server: ServerUnderTest, federation: Federation, tmp_path: Path
) -> None:
    federation.start_supernodes(alpha=OVER_HTTP, beta=OVER_HTTP)
    end = tmp_path / "end"
    run_id = federation.run_app("rounds", f'until="{end}"')
    page = await open_page(chrome, 1280, "light", f"http://{server.options.console}")
    await page.goto("/runs?state=active")
    await page.locator(f"#run-{run_id}").click()
    log = page.locator("#log")
    await expect(log).to_contain_text("round 3: 2 answers")
    await expect(page.get_by_text("of 2 nodes").first).to_be_visible()

    for name in ("gateway-1", "superlink-1"):
        pid = DataDir(server.folder / "data").processes()[name]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    seen = await log.inner_text()
    later = f"round {seen.count(' answers') + 3}: "
    await expect(log).to_contain_text(later)
    end.touch()
    await expect(page.locator("h1 .state")).to_have_text("completed")

    await expect(page.locator("#connection")).to_be_empty()
    assert complaints_of(page) == []
    await page.reload()
    await expect(log).to_contain_text(later)
    await check_page(page, "console-real-run")
    await page.goto("/")
    await expect(page.get_by_text("Can I sleep?")).to_be_visible()
    await check_page(page, "console-real-overview")
    await page.goto("/nodes")
    await expect(page.locator("td .online")).to_have_count(2)
