"""Notifications: a real receiver gets signed events until they arrive; operators manage them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from flower_nats.broker.connection import Connection
from flower_nats.model.account import Role
from flower_nats.model.webhook import new_secret
from flower_nats.store import webhooks
from flower_nats.store.connection import Database
from flower_nats.store.runtime_events import note
from flower_nats.store.webhooks import Webhooks
from flower_nats.superlink.housekeeping import webhook_sender
from flower_nats.superlink.housekeeping.webhook_sender import WebhookSender
from harness.waiting import until
from tests.integration.consoles import Console, running_console
from tests.integration.people import Person


@dataclass
class Receiver:
    """An HTTP server with answers that the test sets."""

    url: str = ""
    answer: str = "204 No Content"
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    hangs: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in head)}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        if not self.hangs:
            writer.write(
                f"HTTP/1.1 {self.answer}\r\nlocation: {self.url}elsewhere\r\n"
                "content-length: 0\r\n\r\n".encode()
            )
            await writer.drain()
            writer.close()

    def texts(self) -> list[str]:
        return [json.loads(body)["text"] for _, body in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://localhost:{server.sockets[0].getsockname()[1]}/"
    yield receiver
    server.close()


@pytest.fixture
async def hook(database: Database, receiver: Receiver) -> int:
    return await Webhooks(database).add(receiver.url, new_secret(), ["nats_away"], None, "none")


async def deliver(database: Database, *, loopback: bool = True) -> str:
    """Make one pass in which all events are due; return the errors of the failed deliveries."""
    await database.execute("UPDATE webhook_delivery SET next_at = now() WHERE next_at IS NOT NULL")
    await WebhookSender(database, loopback=loopback).send()
    return " ".join(one.error for one in await Webhooks(database).troubled(10))


async def test_an_event_is_sent_until_it_arrives(
    database: Database, receiver: Receiver, hook: int
) -> None:
    await note(database, "nats_away", details="<b>\x1b]0;x\x07")
    await note(database, "nats_back")
    receiver.answer = "500 No"
    assert await deliver(database) == "it answers 500"
    receiver.answer = "302 Found"
    assert "redirects are not followed" in await deliver(database)
    [trouble] = await Webhooks(database).troubled(10)
    assert (trouble.tries, trouble.next_at is None) == (2, False)
    receiver.answer = "200 OK"
    assert await deliver(database) == ""
    assert await deliver(database) == ""

    assert receiver.texts() == 3 * ["NATS away. <b>\\x1b]0;x\\x07"]
    [listed] = await Webhooks(database).all()
    assert listed.waiting == 0
    assert listed.delivered_at is not None


async def test_a_receiver_that_hangs_or_is_gone_keeps_nobody_waiting(
    database: Database, receiver: Receiver, hook: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_sender, "_TRY_SECONDS", 0.5)
    receiver.hangs = True
    for url in ("http://127.0.0.1:1/", "http://no-such-host.invalid/", "http://169.254.169.254/"):
        await Webhooks(database).add(url, new_secret(), ["nats_away"], None, "none")
    await note(database, "nats_away")

    errors = await deliver(database)

    for words in ("no answer within", "ConnectError", "gaierror", "link-local"):
        assert words in errors
    monkeypatch.setattr(webhooks, "GIVE_UP", 0.0)
    await deliver(database)
    assert all(one.next_at is None for one in await Webhooks(database).troubled(10))
    receiver.hangs = False
    await deliver(database)
    assert len(receiver.got) == 2, "what was given up is sent no more"


@pytest.mark.parametrize("host", ["a..b", 64 * "a", "xn--"])
async def test_a_host_that_cannot_be_looked_up_keeps_nothing_from_others(
    database: Database, receiver: Receiver, host: str
) -> None:
    """Earlier versions accepted such addresses, so they may be in a database."""
    for url in (f"http://{host}/", receiver.url):
        await Webhooks(database).add(url, new_secret(), ["nats_away"], None, "none")
    await note(database, "nats_away")

    assert await deliver(database)

    [trouble] = await Webhooks(database).troubled(10)
    assert (trouble.url, trouble.tries) == (f"http://{host}/", 1)
    assert len(receiver.got) == 1


async def test_two_superlinks_do_not_send_the_same(
    database: Database, receiver: Receiver, hook: int
) -> None:
    for _ in range(5):
        await note(database, "nats_away")
    senders = [WebhookSender(database, loopback=True) for _ in range(4)]
    await asyncio.gather(*(sender.send() for sender in senders))
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == len(receiver.got) == 5


async def test_with_accounts_nothing_is_sent_to_the_machine_itself(
    database: Database, receiver: Receiver, hook: int
) -> None:
    await note(database, "nats_away")
    assert "the machine of the superlink itself" in await deliver(database, loopback=False)
    assert receiver.got == []


@pytest.fixture
async def console(connection: Connection, nats_url: str, pg_dsn: str) -> AsyncIterator[Console]:
    async with running_console(nats_url, pg_dsn) as console:
        yield console


async def test_a_webhook_is_added_tried_and_removed_on_the_page(
    console: Console, receiver: Receiver
) -> None:
    own = {"origin": f"http://{console.address}"}
    form = {"url": f"{receiver.url}secret-path", "kind": ["runs", "node_online"]}
    for headers in ({}, {"origin": "http://evil.example"}):
        assert (await console.http.post("/webhooks", data=form, headers=headers)).status_code == 403

    added = await console.http.post("/webhooks", data=form, headers=own)
    secret = re.search(r"whsec_[\w+/=]+", added.text)
    assert secret
    [listed] = (await console.json("/webhooks.json"))["webhooks"]
    test = await console.http.post(f"/webhooks/{listed['webhook_id']}/test", headers=own)
    assert test.status_code == 303
    await until(lambda: len(receiver.got) == 1)
    app = await console.gateway.server_app()
    await until(lambda: len(receiver.got) == 2)

    assert "Webhook tested" in receiver.texts()[0]
    told = json.loads(receiver.got[1][1])
    assert (told["kind"], told["run_id"]) == ("run_started", str(app.run_id))
    headers, body = receiver.got[1]
    key = base64.b64decode(secret[0].removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    page = (await console.http.get("/webhooks")).text
    assert secret[0] not in page
    assert "secret-path" not in page

    removed = await console.http.post(f"/webhooks/{listed['webhook_id']}/remove", headers=own)
    assert removed.status_code == 303
    again = await console.http.post(f"/webhooks/{listed['webhook_id']}/remove", headers=own)
    assert again.status_code == 400
    assert "There is no webhook" in again.text
    for bad in (
        {"url": "ftp://x", "kind": "runs"},
        {"url": "http://a..b/", "kind": "runs"},
        {"url": receiver.url},
        {"url": receiver.url, "kind": "<b>"},
        {"url": receiver.url, "kind": "runs", "federation": "@no/such"},
        {},
    ):
        refused = await console.http.post("/webhooks", data=bad, headers=own)
        assert refused.status_code == 400, bad
    assert (await console.json("/webhooks.json"))["webhooks"] == []


async def test_who_is_no_operator_finds_no_such_page(
    connection: Connection, nats_url: str, pg_dsn: str
) -> None:
    async with running_console(nats_url, pg_dsn, accounts=True) as console:
        superlink = console.gateway.superlink
        ada = await Person.come(superlink, "ada")
        boss = await Person.come(superlink, "boss", Role.OPERATOR)
        own = {"origin": f"http://{console.address}"}
        statuses = []
        for person in (ada, boss):
            console.http.cookies.set("flower_nats_console", person.logged_in.token)
            statuses += [
                (await console.http.get("/webhooks")).status_code,
                (
                    await console.http.post(
                        "/webhooks",
                        data={"url": "https://x.example", "kind": "runs"},
                        headers=own,
                    )
                ).status_code,
            ]
        assert statuses == [404, 404, 200, 200]
        trail = await superlink.database.fetch_all(
            "SELECT account_name, outcome FROM audit_event WHERE action = 'AddWebhook' ORDER BY 1, 2"
        )
        assert [(row["account_name"], row["outcome"]) for row in trail] == [
            ("ada", "FORBIDDEN_ACTION"),
            ("boss", "done"),
        ]
