"""The permissions of each NATS user, tested in a nats-server with the real configuration."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from flower_nats.broker.connection import Connection
from flower_nats.broker.inboxes import inboxes_of
from flower_nats.broker.permissions import User
from flower_nats.broker.streams import missing_streams
from flower_nats.wire import runtime_pb2 as runtime
from harness.channels import WireName
from harness.children import PATIENCE
from harness.logins import as_user
from tests.integration.gateways import running_stack

SUPERLINK, GATEWAY, OPERATOR, CONSOLE, BACKUP = USERS = (
    User.SUPERLINK,
    User.GATEWAY,
    User.OPERATOR,
    User.CONSOLE,
    User.BACKUP,
)
ASKING = {SUPERLINK, GATEWAY, OPERATOR, CONSOLE}

SAY = {
    # Streams.
    "$JS.API.STREAM.DELETE.FN_MESSAGES": set(),
    "$JS.API.STREAM.DELETE.FN_LOGS": {BACKUP},
    "$JS.API.STREAM.CREATE.FN_LOGS": {SUPERLINK},
    "$JS.API.STREAM.CREATE.OTHER": set(),
    "$JS.API.STREAM.UPDATE.FN_MESSAGES": {SUPERLINK},
    "$JS.API.STREAM.PURGE.FN_LOGS": {SUPERLINK},
    "$JS.API.STREAM.PURGE.FN_OBJECTS": {SUPERLINK},
    "$JS.API.STREAM.PURGE.FN_MESSAGES": {SUPERLINK, GATEWAY},
    "$JS.API.STREAM.PURGE.FN_BLOBS": ASKING,
    "$JS.API.STREAM.MSG.DELETE.FN_LOGS": set(),
    "$JS.API.STREAM.SNAPSHOT.FN_LOGS": {BACKUP},
    "$JS.API.STREAM.SNAPSHOT.FN_MESSAGES": set(),
    "$JS.API.STREAM.RESTORE.FN_LOGS": {BACKUP},
    "$JS.API.STREAM.LEADER.STEPDOWN.FN_LOGS": set(),
    "$JS.API.STREAM.NAMES": {SUPERLINK, BACKUP},
    "$JS.API.CONSUMER.CREATE.FN_LOGS": set(),
    "$JS.API.STREAM.MSG.GET.FN_MESSAGES": {SUPERLINK, GATEWAY},
    "$JS.API.DIRECT.GET.FN_OBJECTS": {SUPERLINK, GATEWAY},
    # Messages in streams.
    "fn.run.1.node.2.s.m.instruction": {SUPERLINK, GATEWAY},
    "fn.obj.1.o.head": {SUPERLINK, GATEWAY},
    "fn.log.1": {SUPERLINK, GATEWAY},
    "fn.blob.b.0": ASKING,
    # Calls.
    "fn.api.Fleet.RegisterNode": {GATEWAY},
    "fn.api.Runtime.ClaimTask": {GATEWAY},
    "fn.api.Control.StartRun": {GATEWAY, CONSOLE},
    "fn.one.s.Control.StartRun": {GATEWAY, CONSOLE},
    "fn.api.Internal.ResolveToken": {SUPERLINK, GATEWAY},
    "fn.api.Operator.DeleteRun": {OPERATOR},
    "fn.one.s.Operator.DeleteRun": {OPERATOR},
    # Hints.
    "fn.event.run.1": {SUPERLINK},
    "fn.event.node.1": {SUPERLINK},
    "fn.event.superlink.s": {SUPERLINK},
    "fn.wake.tasks": {SUPERLINK},
    "fn.wake.node.1": {SUPERLINK, GATEWAY},
    "fn.event.gateway.g": {SUPERLINK, GATEWAY},
    # Answers in the name of a superlink.
    "_INBOX.gateway.x.1": {SUPERLINK},
    "_INBOX.superlink.x.1": {SUPERLINK},
    "_INBOX.operator.x.1": {SUPERLINK},
    # The system.
    "$SYS.REQ.SERVER.PING.VARZ": {SUPERLINK},
    "$SYS.REQ.SERVER.PING": set(),
    "$SYS.REQ.ACCOUNT.PING.CONNZ": set(),
    "anything": set(),
}
"""The users that may publish on a subject."""

HEAR = {
    "fn.api.Runtime.ClaimTask": {SUPERLINK},
    "fn.api.>": {SUPERLINK},
    "fn.one.>": {SUPERLINK},
    "fn.run.>": set(),
    "fn.blob.>": set(),
    "fn.wake.>": {SUPERLINK, GATEWAY, CONSOLE},
    "fn.event.>": {SUPERLINK, GATEWAY, CONSOLE},
    "_INBOX.>": set(),
    "_INBOX.gateway.>": {GATEWAY},
    "_INBOX.superlink.>": {SUPERLINK},
    "_INBOX.operator.>": {OPERATOR},
    "_INBOX.console.>": {CONSOLE},
    "_INBOX.owner.>": set(),
    "$SYS.>": set(),
    "$JS.>": set(),
    "$JS.EVENT.ADVISORY.>": set(),
    ">": set(),
}
"""The users that may subscribe to a subject."""


@asynccontextmanager
async def client(owner_url: str, user: User) -> AsyncIterator[tuple[Client, list[str]]]:
    """A plain client of a user, and a list of its refusals."""
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error).lower())

    connected = await nats.connect(
        as_user(owner_url, user), error_cb=note, inbox_prefix=inboxes_of(user)
    )
    try:
        yield connected, refused
    finally:
        await connected.close()


async def until_refused(connected: Client, refused: list[str]) -> None:
    """Wait for all refusals: they come in order, and the refusal of this message is the last."""
    await connected.publish("last", b"")
    async with asyncio.timeout(PATIENCE):
        while not any('publish to "last"' in one for one in refused):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_say_what_it_needs_and_nothing_else(nats_url: str, user: User) -> None:
    async with client(nats_url, user) as (connected, refused):
        for subject in SAY:
            await connected.publish(subject, b"not json")
        await until_refused(connected, refused)

    said = {
        subject
        for subject in SAY
        if not any(f'publish to "{subject}"'.lower() in one for one in refused)
    }

    assert said == {subject for subject, users in SAY.items() if user in users}


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_hear_what_it_needs_and_nothing_else(nats_url: str, user: User) -> None:
    heard = set()
    for subject in HEAR:
        async with client(nats_url, user) as (connected, refused):
            await connected.subscribe(subject)
            await connected.subscribe(subject, queue="superlink")
            await until_refused(connected, refused)
            if not any("subscription" in one for one in refused):
                heard.add(subject)

    assert heard == {subject for subject, users in HEAR.items() if user in users}


async def test_a_superlink_answers_to_inboxes_alone(connection: Connection, nats_url: str) -> None:
    """A caller must not make a superlink send messages to the broker in the superlink's name."""
    superlink = await Connection.connect([as_user(nats_url, User.SUPERLINK)], "superlink")
    await connection.store("fn.log.1", b"a line")

    async def serve(message: Msg) -> None:
        await superlink.answer(message, b"", {})

    await superlink.subscribe("fn.api.Internal.Echo", serve)
    async with client(nats_url, User.GATEWAY) as (gateway, _):
        purge = "$JS.API.STREAM.PURGE.FN_LOGS"
        await gateway.publish("fn.api.Internal.Echo", b"", reply=purge)
        await gateway.request("fn.api.Internal.Echo", b"")
    assert await connection.last("FN_LOGS", "fn.log.1") is not None
    await superlink.close()


ELSEWHERE = {
    "$JS.API.STREAM.PURGE.FN_LOGS": GATEWAY,
    "$JS.API.STREAM.DELETE.FN_LOGS": GATEWAY,
    "fn.event.run.1": GATEWAY,
    "fn.api.Operator.DeleteRun": GATEWAY,
    "_INBOX.superlink.x": GATEWAY,
    "_INBOX.operator.x": CONSOLE,
    "$JS.API.STREAM.DELETE.FN_BLOBS": CONSOLE,
}
"""Reply subjects that a user might name in a legal request, to send the answer elsewhere."""


async def test_answers_go_to_the_account_that_has_asked(
    connection: Connection, nats_url: str
) -> None:
    heard = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    await connection.store("fn.log.1", b"a line")
    await connection.store("fn.obj.1.o.head", b"{}")
    for subject, user in ELSEWHERE.items():
        await connection.subscribe(subject, hear)
        async with client(nats_url, user) as (guest, _):
            question = b'{"last_by_subj": "fn.obj.1.o.head"}'
            for stream in ("FN_OBJECTS", "FN_BLOBS"):
                for verb in ("DIRECT.GET", "STREAM.MSG.GET", "STREAM.PURGE"):
                    await guest.publish(f"$JS.API.{verb}.{stream}", question, reply=subject)
            await guest.publish("fn.obj.1.o.head", b"{}", reply=subject)
            await guest.publish("fn.blob.1.0", b"{}", reply=subject)
            # A connection keeps the order: after this answer, everything above has happened.
            await guest.request("fn.blob.1.1", b"{}")

    assert await connection.last("FN_LOGS", "fn.log.1") is not None
    assert await missing_streams(connection) == set()
    assert heard == []


@pytest.mark.usefixtures("connection")
async def test_no_token_of_a_task_is_ever_said(nats_url: str, pg_dsn: str, wire: WireName) -> None:
    said = []

    async def hear(message: Msg) -> None:
        said.append(f"{message.headers} {message.data.decode('latin-1')}")

    listener = await nats.connect(nats_url)
    await listener.subscribe(">", cb=hear)
    await listener.flush()
    async with running_stack(nats_url, pg_dsn, wire) as gateway:
        app = await gateway.server_app()
        await app.call("SendTaskHeartbeat", runtime.SendTaskHeartbeatRequest())
        await app.call("PushLogs", runtime.PushLogsRequest(logs=["a line"]))
        await app.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="completed"))
    await listener.drain()

    assert any("a line" in one for one in said)
    assert len(app.token) == 256
    assert not any(app.token in one for one in said)
