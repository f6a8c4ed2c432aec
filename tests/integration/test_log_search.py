"""Search for words in all logs, and for errors of all runs, over HTTP like the pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.model.exchange import ExchangeNote
from flower_nats.store.exchanges import Exchanges
from flower_nats.superlink.console import log_search
from flower_nats.wire import runtime_pb2 as runtime
from harness.children import PATIENCE
from harness.clients import ServerApp
from tests.integration.consoles import Console, running_console
from tests.integration.people import Person
from tests.integration.superlinks import running_superlink

NASTY = "<script>alert(1)</script> \x1b]0;title\x07"


@pytest.fixture
async def console(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Console]:
    async with running_console(nats_url, pg_dsn) as console:
        yield console


async def write(console: Console, app: ServerApp, *lines: str) -> None:
    await app.call("PushLogs", runtime.PushLogsRequest(run_id=app.run_id, logs=list(lines)))
    async with asyncio.timeout(PATIENCE):
        while lines[-1].strip() not in await text_of(console, app.run_id):
            await asyncio.sleep(0.05)


async def text_of(console: Console, run_id: int) -> str:
    text, position = "", 0
    while True:
        piece = await console.json(f"/runs/{run_id}/log.json?after={position}")
        if not piece["text"]:
            return text
        text, position = text + piece["text"], piece["position"]


async def search(console: Console, query: str) -> tuple[list[dict[str, Any]], int]:
    """Search to the end, like the page; return the lines and the number of answers."""
    hits, answers, path = [], 0, f"/logs.json?{query}"
    while path:
        found = await console.json(path)
        hits += found["hits"]
        path, answers = found["further"], answers + 1
    return hits, answers


async def test_lines_of_all_runs_are_found_with_links_to_them(console: Console) -> None:
    older, newer = [await console.gateway.server_app() for _ in range(2)]
    await write(console, older, "one\n", "\x1b[92mINFO\x1b[0m :   CUDA out of memory\n", "end\n")
    await write(console, newer, f"{NASTY} cuda OUT of memory {'x' * 2000}\n", "中文 Größe\n")

    hits, _ = await search(console, "q=Cuda+out+of")

    assert [one["run_id"] for one in hits] == [str(newer.run_id), str(older.run_id)]
    assert "\\x1b]0;title\\x07" in hits[0]["text"]
    assert len(hits[0]["text"]) < 500
    assert (hits[1]["line"], hits[1]["text"]) == (1, "INFO :   CUDA out of memory")
    assert len((await search(console, "q=GRÖSSE"))[0]) == 0
    assert len((await search(console, "q=größe"))[0]) == 1
    assert len((await search(console, "q=info+:+++cuda"))[0]) == 1
    page = await console.http.get("/logs?q=cuda")
    assert "<script>alert" not in page.text
    link = f"/runs/{older.run_id}/log?at={hits[1]['position']}&line=1"
    assert link.replace("&", "&amp;") in page.text
    around = (await console.http.get(link)).text
    assert '<mark id="line">INFO :   CUDA out of memory</mark>' in around
    assert "one\n" in around
    assert "end\n" in around
    for bad in ("at=0", f"at={hits[1]['position']}&line=99", "at=99999999", "", "at=<b>"):
        assert (await console.http.get(f"/runs/{older.run_id}/log?{bad}")).status_code == 404
    assert (await console.http.get(f"/runs/7/log?at={hits[1]['position']}")).status_code == 404


async def test_a_search_goes_on_where_it_has_stopped(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_search, "_BUDGET", 0.0)
    monkeypatch.setattr(log_search, "_PIECE", 1)
    apps = [await console.gateway.server_app() for _ in range(2)]
    for app in apps:
        for number in range(3):
            await write(console, app, f"needle {app.run_id} {number}\n")
    found = await console.json("/logs.json?q=needle")
    assert (len(found["hits"]), found["looked"]["lines"]) == (1, 1)

    hits, answers = await search(console, "q=needle")

    assert [one["text"] for one in hits] == [
        f"needle {app.run_id} {number}" for app in reversed(apps) for number in range(3)
    ]
    assert answers > 1


@pytest.mark.parametrize("piece", [1, 4 * 1024 * 1024])
async def test_a_line_that_came_in_pieces_is_found_and_shown_whole(
    console: Console, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(log_search, "_BUDGET", 0.0)
    monkeypatch.setattr(log_search, "_PIECE", piece)
    app = await console.gateway.server_app()
    # The app writes its lines in parts, and each call sends the text so far.
    for text in ("one\nCUDA out", " of m", "emory on", " Größe 3\nnext CUDA out", " of cards\nno"):
        await write(console, app, text)
    await write(console, app, " needle")

    hits, _ = await search(console, "q=cuda+out+of")

    assert [one["text"] for one in hits] == [
        "CUDA out of memory on Größe 3",
        "next CUDA out of cards",
    ]
    for one in hits:
        link = f"/runs/{app.run_id}/log?at={one['position']}&line={one['line']}"
        around = (await console.http.get(link)).text
        assert f'<mark id="line">{one["text"]}</mark>' in around
        assert "one\n" in around
        assert "no needle\n" in around
    assert [one["text"] for one in (await search(console, "q=no+needle"))[0]] == ["no needle"]
    assert [one["text"] for one in (await search(console, "q=GRÖSSE+3"))[0]] == []
    assert len((await search(console, "q=memory+on+größe"))[0]) == 1


async def test_many_lines_that_are_found_are_one_page(console: Console) -> None:
    app = await console.gateway.server_app()
    lines = [*(f"{NASTY} line {number}\n" for number in range(10_000)), "end\n"]
    await write(console, app, *lines)

    page = await console.http.get("/logs?q=line")
    hits, answers = await search(console, "q=line+99")

    assert page.text.count("<code>") == 100
    assert len(page.content) < 200_000
    assert [one["text"].rpartition(" ")[2] for one in hits] == [
        str(number) for number in range(10_000) if str(number).startswith("99")
    ]
    assert answers >= 2
    for query in ("q=%00", "q=<b>&skip=-1&run=x&after=z", "q=a&federation=%00'", "q="):
        answer = await console.http.get(f"/logs?{query}")
        assert answer.status_code == 200, query
        assert "<b>" not in answer.text


async def test_errors_of_nodes_and_runs_are_grouped(console: Console) -> None:
    app = await console.gateway.server_app()
    node = await console.gateway.node()
    await Exchanges(console.gateway.superlink.database).add(
        [
            ExchangeNote(
                app.run_id,
                number,
                node.node_id,
                1,
                "train",
                answered=1.0,
                outcome="failed",
                reason=f"<b>CUDA\x1b]0;x\x07 out of memory: {number} GiB",
            )
            for number in range(1, 4)
        ]
    )
    await console.gateway.superlink.database.execute(
        "UPDATE task SET status = 'finished', sub_status = 'failed', details = 'no route',"
        " finished_at = now() WHERE run_id = %(run_id)s",
        run_id=app.run_id,
    )

    found = await console.json("/errors.json")

    assert [(one["outcome"], one["count"]) for one in found["groups"]] == [
        ("run", 1),
        ("failed", 3),
    ]
    said = found["groups"][1]
    assert said["says"] == "<b>CUDA\\x1b]#;x\\x07 out of memory: # GiB"
    assert said["runs"] == [str(app.run_id)]
    assert [one["node_id"] for one in said["nodes"]] == [str(node.node_id)]
    page = await console.http.get("/errors?federation=@none/default")
    assert "3 times" in page.text
    assert "1 failed run" in page.text
    assert f'href="/nodes/{node.node_id}"' in page.text
    assert "<b>1</b> failed" in (await console.http.get("/")).text
    assert "<b>CUDA" not in page.text
    assert (await console.json("/errors.json?federation=@no/such"))["groups"] == []


async def test_nobody_finds_what_is_of_other_federations(
    connection: Connection, nats_url: str, pg_dsn: str
) -> None:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        ada, eve = [await Person.come(superlink, name) for name in ("ada", "eve")]
        federation = await ada.create("hospitals")
        run_id = await ada.start_run(federation)
        database = superlink.database
        await database.execute(
            "UPDATE task SET status = 'finished', sub_status = 'failed', finished_at = now()"
        )
        errors = Exchanges(database).errors
        [seen] = await errors(30, None, ada.account_id, 10)
        assert seen.run_ids == [run_id]
        assert await errors(30, None, eve.account_id, 10) == []
