"""An operator finds the slow node and the failed node of a real run in the console.

Stock SuperNodes train: one is slow, and one fails. The documentation has pictures of this run.

`FLOWER_NATS_TEST_PICTURES=docs/console` writes them there. The test takes a minute and a half
on two idle cores; `--timeout 900` gives it more time on a busy machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, Page, expect

from harness.certificates import create_node_key, create_server_certificates
from harness.environment import free_port
from tests.browser.pages import PICTURES, check_page, complaints_of, open_page
from tests.e2e.federation import Federation
from tests.e2e.servers import STOCK, ServerOptions, ServerUnderTest, running_server

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(STOCK, reason="stock has no console"),
]

ROUNDS = 5

_LONG = 900_000
"""Milliseconds: longer than the time limit of the test, which ends each wait before."""


@dataclass(frozen=True)
class Hospital:
    """A node of the federation."""

    name: str
    patients: int
    trouble: str = ""


SLOW = Hospital("Heart Centre, Porto", 260, "slow")
FAILING = Hospital("Radiology, Turku", 90, "memory")
HOSPITALS = (
    Hospital("University Hospital, Lyon", 420),
    SLOW,
    Hospital("Klinikum Graz", 310),
    FAILING,
    Hospital("Hôpital Saint-Éloi, Montpellier", 150),
    Hospital("Νοσοκομείο Θεσσαλονίκης", 200),
    Hospital("Szpital Kliniczny, Kraków", 380),
    Hospital("مستشفى القصر العيني", 240),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    folder = tmp_path_factory.mktemp("hospitals")
    options = ServerOptions(
        certificates=create_server_certificates(folder),
        supernode_auth=True,
        console=f"127.0.0.1:{free_port()}",
        more=("--record-metrics",),
    )
    with running_server(folder, options) as server:
        yield server


@pytest.fixture(scope="module")
def federation(server: ServerUnderTest) -> Iterator[Federation]:
    clients = Federation(server, server.folder / "clients")
    for at, one in enumerate(HOSPITALS):
        key = create_node_key(server.folder, f"hospital-{at}")
        clients.cli_json("supernode", "register", key.public, "--name", one.name)
        said = f'seed={at} patients={one.patients} trouble="{one.trouble}"'
        clients.start_supernode_process(f"hospital-{at}", key, node_config=said)
    yield clients
    clients.close()


async def keep(page: Page, name: str) -> None:
    """Keep a picture of a window."""
    if PICTURES:
        await page.screenshot(path=f"{PICTURES}/{name}.png")


async def test_who_is_slow_and_what_failed_is_found(
    chrome: Browser, server: ServerUnderTest, federation: Federation
) -> None:
    run_id = federation.run_app("hospitals", f"num-server-rounds={ROUNDS}")
    page = await open_page(chrome, 1280, "light", f"http://{server.options.console}")

    # Which hospital holds up the round?
    await page.goto("/")
    await page.locator(f"#run-{run_id}").click(timeout=60_000)
    await expect(page.locator("#rounds ~ .lead")).to_contain_text(
        f"rounds the others waited for {SLOW.name}", timeout=_LONG
    )
    # In the last two rounds the slow node holds up the others again.
    waits = re.compile(rf"Round [{ROUNDS - 1}{ROUNDS}] waits for 1 of {len(HOSPITALS)} nodes")
    await expect(page.locator("#rounds ~ .lead")).to_contain_text(waits, timeout=_LONG)
    await expect(page.locator("#failures")).to_contain_text("CUDA out of memory")
    await expect(page.locator("#failures")).to_contain_text(FAILING.name)
    await page.wait_for_function("document.querySelector('canvas').height > 150")
    await keep(page, "run")

    await expect(page.locator("h1 .state")).to_have_text("completed", timeout=_LONG)
    # The numbers of the nodes, and those of the ServerApp itself.
    await page.goto(f"/runs/{run_id}/metrics")
    await expect(page.locator("#metrics[data-drawn] canvas")).to_be_visible()
    await keep(page, "metrics")
    await page.locator("#metric").select_option("global evaluation/accuracy")
    await expect(page.locator("figcaption")).to_contain_text("as the ServerApp has logged it")
    await expect(page.locator("tbody tr")).to_have_count(ROUNDS + 1)
    await check_page(page, "hospitals-accuracy")

    await page.goto("/errors")
    await expect(page.locator(".stream")).to_contain_text("CUDA out of memory")
    await keep(page, "errors")
    await page.goto("/nodes")
    await expect(page.locator("td .online")).to_have_count(len(HOSPITALS))
    await check_page(page, "hospitals-nodes")
    await page.goto("/")
    await check_page(page, "hospitals-overview")
    assert complaints_of(page) == []
