"""The audit trail: it has all actions with their actors, and shows any change to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from flower_nats.broker import subjects
from flower_nats.model.account import Role
from flower_nats.model.errors import ErrorCode
from flower_nats.store.accounts import Accounts, Tokens
from flower_nats.store.audit import AuditTrail
from flower_nats.store.connection import StoreError
from flower_nats.wire import common_pb2 as common
from flower_nats_cli.audit import audit
from harness.fabs import make_fab
from tests.integration.people import Person
from tests.integration.superlinks import Superlink, refused, running_superlink

ALL: dict[str, Any] = {
    "account": None,
    "action": None,
    "object": None,
    "outcome": None,
    "since": None,
    "after": 0,
}
LAB = "@ana/lab"


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        yield superlink


async def trail(superlink: Superlink, **wanted: Any) -> list[tuple[str, str, str, str]]:
    events = (await superlink.command("AuditEvents", **{**ALL, **wanted}))["events"]
    return [(one["account_name"], one["action"], one["object"], one["outcome"]) for one in events]


async def shown(nats_url: str, *options: str) -> tuple[int, str]:
    """Return the exit code and the output of `flower-nats audit`."""
    result = await asyncio.to_thread(
        CliRunner().invoke, audit, ["--nats", nats_url, *options], catch_exceptions=False
    )
    return result.exit_code, result.output


async def test_changes_and_refusals_are_events_and_looking_is_not(superlink: Superlink) -> None:
    ana, ben = await Person.come(superlink, "ana"), await Person.come(superlink, "ben")
    await ana.create("lab")
    run_id = await ana.start_run(LAB)
    await ana.runs()
    with refused(ErrorCode.RUN_ID_NOT_FOUND):
        await ben.call("StopRun", run_id=run_id)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER):
        await ben.show(LAB)
    with refused(ErrorCode.RUN_ID_NOT_FOUND):
        token = ben.logged_in.token_hash
        await superlink.ask("FollowRun", run_id=run_id, account_token=token, session="")
    await ana.invite(ben, LAB)
    node = await ben.register(LAB)
    await ana.call("StopRun", run_id=run_id)
    await superlink.command("DisableAccount", name="ben")
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await ben.runs()

    assert await trail(superlink) == [
        ("ana", "CreateFederation", LAB, "done"),
        ("ana", "StartRun", f"run {run_id}, {LAB}", "done"),
        ("ben", "StopRun", f"run {run_id}", "RUN_ID_NOT_FOUND"),
        ("ben", "ShowFederation", LAB, "FEDERATION_NOT_FOUND_OR_NOT_MEMBER"),
        ("ben", "StreamLogs", f"run {run_id}", "RUN_ID_NOT_FOUND"),
        ("ana", "CreateInvitation", f"{LAB}, account ben", "done"),
        ("ben", "AcceptInvitation", LAB, "done"),
        ("ben", "RegisterNode", f"node {node.node_id}", "done"),
        ("ben", "AddNodeToFederation", f"node {node.node_id}, {LAB}", "done"),
        ("ana", "StopRun", f"run {run_id}", "done"),
        ("(flower-nats)", "DisableAccount", "account ben", "done"),
        ("", "ListRuns", "", "ACCOUNT_AUTHENTICATION_FAILED"),
    ]


async def test_a_call_that_is_made_again_is_one_event(superlink: Superlink) -> None:
    ana = await Person.come(superlink, "ana")
    await ana.create("lab")
    fab = common.Fab(content=make_fab())

    await asyncio.gather(
        *(ana.call("StartRun", request_id="one call", fab=fab, federation=LAB) for _ in range(3))
    )

    assert len(await trail(superlink, action="startrun")) == 1


async def test_many_at_once_make_one_chain(superlink: Superlink, nats_url: str) -> None:
    people = [await Person.come(superlink, f"person-{number}") for number in range(5)]

    await asyncio.gather(
        *(one.create(f"lab-{number}") for one in people for number in range(4)),
        *(one.call("ArchiveFederation", federation_name="@x/y") for one in people),
        return_exceptions=True,
    )

    code, said = await shown(nats_url, "--verify")
    assert code == 0, said
    assert "25 events, complete and unchanged" in said


async def test_what_was_changed_or_is_missing_is_found(
    superlink: Superlink, nats_url: str, pg_dsn: str
) -> None:
    ana = await Person.come(superlink, "ana")
    for number in range(4):
        await ana.create(f"lab-{number}")
    with pytest.raises(StoreError):
        await superlink.database.execute("UPDATE audit_event SET outcome = 'done'")
    with pytest.raises(StoreError):
        await superlink.database.execute("DELETE FROM audit_event")

    async def tampered(statement: str) -> str:
        async with await psycopg.AsyncConnection.connect(pg_dsn, autocommit=True) as connection:
            await connection.execute("ALTER TABLE audit_event DISABLE TRIGGER ALL")
            await connection.execute(statement)
        code, said = await shown(nats_url, "--verify")
        assert code == 1
        return said

    # Swap the two events.
    exchange = (
        "UPDATE audit_event SET event_id = -event_id WHERE event_id IN (1, 2);"
        "UPDATE audit_event SET event_id = 3 + event_id WHERE event_id < 0"
    )
    assert "Event 1 or an earlier one was changed" in await tampered(exchange)
    async with await psycopg.AsyncConnection.connect(pg_dsn, autocommit=True) as connection:
        await connection.execute(exchange)
    cut_off = await tampered("DELETE FROM audit_event WHERE event_id = 4")
    assert "Events 4 to 4 are missing at the end" in cut_off
    assert "Event 3 or an earlier one was changed" in await tampered(
        "UPDATE audit_event SET account_name = 'ben' WHERE event_id = 3"
    )
    assert "Event 2 is missing" in await tampered("DELETE FROM audit_event WHERE event_id = 2")


async def test_old_events_are_removed_and_the_chain_goes_on(
    superlink: Superlink, nats_url: str, pg_dsn: str
) -> None:
    ana = await Person.come(superlink, "ana")
    for number in range(4):
        await ana.create(f"lab-{number}")
    # Given two old events: they are changed before they are chained, so the hashes fit.
    async with await psycopg.AsyncConnection.connect(pg_dsn, autocommit=True) as connection:
        await connection.execute("ALTER TABLE audit_event DISABLE TRIGGER ALL")
        await connection.execute(
            "UPDATE audit_event SET at = at - interval '3 days' WHERE event_id < 3"
        )
        # An event of the superlink itself, with a time long ago, in front of all young events.
        await connection.execute(
            "UPDATE audit_event SET at = at - interval '3000 days' "
            "WHERE event_id = (SELECT max(event_id) FROM audit_event)"
        )
        await connection.execute("ALTER TABLE audit_event ENABLE TRIGGER ALL")

    trail = AuditTrail(superlink.database)
    too_early = await trail.forget(2)
    await trail.set_bound(0)
    never = await trail.forget(2)
    await trail.set_bound(2)
    removed = await trail.forget(1)
    async with await psycopg.AsyncConnection.connect(pg_dsn, autocommit=True) as connection:
        await connection.execute("ALTER TABLE audit_event DISABLE TRIGGER ALL")
        await connection.execute(
            "UPDATE audit_event SET at = at + interval '3000 days' "
            "WHERE at < now() - interval '2000 days'"
        )
        await connection.execute("ALTER TABLE audit_event ENABLE TRIGGER ALL")
    await ana.create("another")

    assert (too_early, never, removed) == (0, 0, 2)
    code, said = await shown(nats_url, "--verify")
    assert code == 0, said
    assert "3 events, complete" in said


async def test_an_operator_filters_and_exports(superlink: Superlink, nats_url: str) -> None:
    ana, ben = await Person.come(superlink, "ana"), await Person.come(superlink, "ben")
    await Person.come(superlink, "op", Role.OPERATOR)
    await ana.create("lab")
    await ben.create("lab")

    _, exported = await shown(nats_url, "--account", "ANA", "--json")
    _, about = await shown(nats_url, "--object", "@ben/")
    _, later = await shown(nats_url, "--since", "2999-01-01")

    [event] = [json.loads(line) for line in exported.splitlines()]
    assert (event["account_name"], event["object"]) == ("ana", LAB)
    assert event["account_id"] == ana.account_id
    assert len(event["hash"]) == 64
    head, row = about.splitlines()
    assert head.split("  ")[1] == "TIME (UTC)"
    for title, cell in {
        "ACCOUNT": "ben",
        "ACTION": "CreateFederation",
        "OBJECT": "@ben/lab",
    }.items():
        assert row[head.index(title) :].startswith(f"{cell}  ")
    assert row.endswith("  done")
    assert not later


async def test_strangers_do_not_fill_the_trail(superlink: Superlink) -> None:
    ana = await Person.come(superlink, "ana")
    await superlink.command("DisableAccount", name="ana")

    async def knock() -> None:
        with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
            await ana.runs()

    await asyncio.gather(*(knock() for _ in range(200)))

    # Up to 120: a new minute may begin meanwhile.
    assert 60 <= len(await trail(superlink, action="ListRuns")) <= 120


async def test_the_login_page_does_not_fill_the_trail(superlink: Superlink) -> None:
    made_up = {"user_code": "BCDF-GHJK", "address": "10.0.0.7"}

    await asyncio.gather(
        *(superlink.ask("RefuseLogin", **made_up) for _ in range(100)),
        *(superlink.ask("ConfirmLogin", name="ana", password="", **made_up) for _ in range(100)),
    )

    # Up to 120: a new minute may begin meanwhile.
    assert 60 <= len(await trail(superlink)) <= 120


async def test_whose_tokens_were_renewed_is_told(superlink: Superlink) -> None:
    ana = await Person.come(superlink, "ana")
    tokens = Tokens.new()
    await superlink.database.transaction(
        lambda session: Accounts(session).open_login(ana.account_id, tokens, None, 60.0)
    )

    await superlink.refresh_tokens(tokens.refresh)

    assert await trail(superlink) == [("ana", "RefreshAuthTokens", "", "done")]


async def test_who_proves_nothing_to_the_console_is_nobody(superlink: Superlink) -> None:
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await superlink.rpc.ask(
            "RemoveWebhook", patience=10, service=subjects.CONSOLE, webhook_id=1
        )

    assert await trail(superlink) == [
        ("", "RemoveWebhook", "webhook 1", "ACCOUNT_AUTHENTICATION_FAILED")
    ]
