"""With accounts, Control serves no caller with an invalid or expired token."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flower_nats.model.account import account_token_hash, new_token
from flower_nats.model.caller import NO_ACCOUNT_ID, NO_ACCOUNT_NAME
from flower_nats.model.errors import ApiError, ErrorCode, Outcome
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME, CONTROL, CallerKind
from harness.accounts import LoggedIn, log_in
from harness.channels import Refused, WireName
from harness.children import PATIENCE
from harness.clients import ServerApp
from harness.environment import SCRIPTS, clean_environment
from harness.fabs import make_fab
from tests.integration.gateways import Gateway, refusal, running_stack
from tests.integration.superlinks import Superlink, refused, running_superlink

FEDERATIONS = control.ListFederationsRequest()

_BOTH_REPLICAS = 10
"""Calls: so many hardly ever all reach the same one of two superlinks."""


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        yield superlink


@pytest.fixture
async def gateway(nats_url: str, pg_dsn: str, wire: WireName) -> AsyncIterator[Gateway]:
    async with running_stack(nats_url, pg_dsn, wire, superlink={"accounts": True}) as gateway:
        yield gateway


async def nodes(superlink: Superlink, **caller: object) -> None:
    """Call like a gateway, with these fields of the caller."""
    request = control.ListNodesRequest()
    await superlink.call("Control", "ListNodes", request, control.ListNodesResponse, **caller)


async def owner_of_a_new_node(superlink: Superlink, **caller: object) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    request = control.RegisterNodeRequest(public_key=pem)
    node = await superlink.call(
        "Control", "RegisterNode", request, control.RegisterNodeResponse, **caller
    )
    row = await superlink.database.fetch_one(
        "SELECT owner_id, owner_name FROM node WHERE node_id = %(id)s", id=node.node_id
    )
    assert row is not None
    return row["owner_id"], row["owner_name"]


async def test_every_call_of_control_needs_a_token_but_those_that_lead_to_one(
    superlink: Superlink,
) -> None:
    open_to_all = set()
    for method in CONTROL:
        if method.streams:
            continue
        try:
            await superlink.call("Control", method.name, method.request(), method.response)
        except ApiError as exc:
            if exc.code is ErrorCode.ACCOUNT_AUTHENTICATION_FAILED:
                assert method.caller is CallerKind.ACCOUNT or method.name == "RefreshAuthTokens"
                continue
        open_to_all.add(method.name)

    assert open_to_all == {"GetLoginDetails", "GetAuthTokens"}


async def test_the_account_is_that_of_the_token_whatever_a_gateway_says(
    superlink: Superlink,
) -> None:
    ana = await log_in(superlink.database, "ana")

    said = {"account_id": "someone", "account_name": "else", "is_operator": True}
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await nodes(superlink, **said)
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await nodes(superlink, account_token=account_token_hash("made up"), **said)
    owner = await owner_of_a_new_node(superlink, account_token=ana.token_hash, **said)

    assert owner == (ana.account.account_id, "ana")


async def test_without_accounts_everybody_is_the_one_that_there_is(
    nats_url: str, pg_dsn: str
) -> None:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        ana = await log_in(superlink.database, "ana")

        owner = await owner_of_a_new_node(superlink, account_token=ana.token_hash)

    assert owner == (NO_ACCOUNT_ID, NO_ACCOUNT_NAME)


async def test_what_is_revoked_is_refused_at_once_by_every_replica(
    nats_url: str, pg_dsn: str
) -> None:
    async with (
        running_superlink(nats_url, pg_dsn, accounts=True) as one,
        running_superlink(nats_url, pg_dsn, accounts=True),
    ):
        ana, ben = await log_in(one.database, "ana"), await log_in(one.database, "ben")
        both = ({"account_token": ana.token_hash}, {"account_token": ben.token_hash})
        for caller in both:
            for _ in range(_BOTH_REPLICAS):
                await nodes(one, **caller)

        await one.command("RevokeAccountToken", name="ana", token="test")
        await one.command("DisableAccount", name="BEN")

        for caller in both:
            for _ in range(_BOTH_REPLICAS):
                with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
                    await nodes(one, **caller)


async def test_a_token_that_has_ended_is_refused(superlink: Superlink) -> None:
    ana = await log_in(superlink.database, "ana", seconds=-1.0)

    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await nodes(superlink, account_token=ana.token_hash)


async def test_an_account_that_is_let_in_again_has_to_log_in_anew(superlink: Superlink) -> None:
    ana = await log_in(superlink.database, "ana")
    await superlink.command("DisableAccount", name="ana")
    await superlink.command("EnableAccount", name="ana")

    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await nodes(superlink, account_token=ana.token_hash)
    token = new_token("token")
    await superlink.command(
        "CreateAccountToken",
        name="ana",
        token="ci",
        token_hash=account_token_hash(token),
        days=1,
    )
    await nodes(superlink, account_token=account_token_hash(token))


@pytest.mark.parametrize("days", [0, -1, 3_651, 1e300, math.inf, math.nan])
async def test_a_token_ends_within_a_time_that_people_remember(
    superlink: Superlink, days: float
) -> None:
    await log_in(superlink.database, "ana")
    with refused(ErrorCode.MALFORMED_REQUEST, "at most 3650 days"):
        await superlink.command(
            "CreateAccountToken", name="ana", token="ci", token_hash=b"0" * 32, days=days
        )


async def test_clients_bring_their_token_in_the_way_of_their_wire(
    gateway: Gateway, wire: WireName
) -> None:
    ana = await log_in(gateway.superlink.database, "ana")

    await gateway.call("Control", "ListFederations", FEDERATIONS, ana.metadata(wire))
    without = await refusal(gateway.call("Control", "ListFederations", FEDERATIONS))

    assert without.outcome is Outcome.UNAUTHENTICATED
    assert without.code == ErrorCode.ACCOUNT_AUTHENTICATION_FAILED


async def follow(gateway: Gateway, run_id: int, ana: LoggedIn | None, method: str) -> list[bytes]:
    rpc = BY_NAME[("Control", method)]
    body = rpc.request(run_id=run_id).SerializeToString()
    metadata = ana.metadata(gateway.wire) if ana else ()
    answers = []
    async with aclosing(gateway.channels["Control"].stream(rpc, body, metadata, 30)) as stream:
        async for answer in stream:
            answers.append(answer)
    return answers


async def running_app(gateway: Gateway, ana: LoggedIn) -> ServerApp:
    federation = control.CreateFederationRequest(federation_name="lab")
    await gateway.call("Control", "CreateFederation", federation, ana.metadata(gateway.wire))
    request = control.StartRunRequest(fab=common.Fab(content=make_fab()))
    run = await gateway.call("Control", "StartRun", request, ana.metadata(gateway.wire))
    app = ServerApp(gateway, run.run_id, *await gateway._take_task(run.run_id))
    await app.call("PullTaskInput", runtime.PullTaskInputRequest())
    return app


@pytest.mark.parametrize("method", ["StreamLogs", "StreamRunEvents"])
async def test_a_run_is_followed_by_those_alone_who_have_a_token(
    gateway: Gateway, method: str
) -> None:
    ana = await log_in(gateway.superlink.database, "ana")
    app = await running_app(gateway, ana)

    without = await refusal(follow(gateway, app.run_id, None, method))
    following = asyncio.create_task(follow(gateway, app.run_id, ana, method))
    await app.call("PushLogs", runtime.PushLogsRequest(logs=["a line"]))
    await app.call("PushTaskOutput", runtime.PushTaskOutputRequest(sub_status="completed"))

    assert without.code == ErrorCode.ACCOUNT_AUTHENTICATION_FAILED
    assert await following or method == "StreamRunEvents"


@pytest.mark.parametrize("method", ["StreamLogs", "StreamRunEvents"])
async def test_a_stream_ends_when_the_account_of_its_caller_is_disabled(
    gateway: Gateway, method: str
) -> None:
    ana = await log_in(gateway.superlink.database, "ana")
    app = await running_app(gateway, ana)
    await app.call("PushLogs", runtime.PushLogsRequest(logs=["a line"]))
    following = asyncio.create_task(follow(gateway, app.run_id, ana, method))
    await gateway.until_in_hand(1)

    await gateway.superlink.command("DisableAccount", name="ana")

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Refused):
            await following


async def flower_nats(*arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPTS / "flower-nats"), *arguments]
        environment = clean_environment({})
        return subprocess.run(
            command,
            env=environment,
            input=piped,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return await asyncio.to_thread(run)


async def test_an_operator_manages_accounts_from_the_command_line(
    superlink: Superlink, nats_url: str, tmp_path: Path
) -> None:
    nats = ("--nats", nats_url)
    password = tmp_path / "password"
    password.write_text("correct horse battery\n")
    with_password = ("--password-file", str(password), *nats)
    made = await flower_nats("account", "create", "Ana", "--role", "operator", *with_password)
    again = await flower_nats("account", "create", "ana", "--no-password", *nats)
    odd = await flower_nats("account", "create", "none", "--no-password", *nats)
    password.write_text("short")
    short = await flower_nats("account", "passwd", "ana", *with_password)
    piped = await flower_nats("account", "passwd", "ana", *nats, piped="another good one\n")
    token = await flower_nats("account", "token", "create", "ana", "ci", *nats)
    await flower_nats("account", "role", "ana", "user", *nats)
    listed = await flower_nats("account", "list", "--format", "json", *nats)
    tokens = await flower_nats("account", "token", "list", "ana", *nats)

    assert made.returncode == 0, made.stderr
    assert again.returncode == odd.returncode == 1
    assert "already" in again.stderr
    assert "cannot be the name" in odd.stderr
    assert "from 10 to 512 characters" in short.stderr
    assert (piped.returncode, piped.stderr) == (0, "")
    await nodes(superlink, account_token=account_token_hash(token.stdout.strip()))
    [ana] = json.loads(listed.stdout)
    assert (ana["name"], ana["role"], ana["disabled_at"]) == ("Ana", "user", None)
    assert "ci" in tokens.stdout
    revoked = await flower_nats("account", "token", "revoke", "ana", "ci", *nats)
    assert revoked.returncode == 0, revoked.stderr
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await nodes(superlink, account_token=account_token_hash(token.stdout.strip()))


async def register_itself(superlink: Superlink) -> None:
    await superlink.online_node()


async def test_with_accounts_no_supernode_registers_itself_unless_that_is_said(
    superlink: Superlink,
) -> None:
    with refused(ErrorCode.SUPERNODE_REGISTRATION_DISABLED):
        await register_itself(superlink)


async def test_self_registration_may_be_on_beside_accounts(nats_url: str, pg_dsn: str) -> None:
    async with running_superlink(
        nats_url, pg_dsn, accounts=True, supernode_self_registration=True
    ) as superlink:
        await register_itself(superlink)


async def test_a_gateway_that_requires_accounts_is_served_by_no_superlink_without(
    nats_url: str, pg_dsn: str, wire: WireName
) -> None:
    async with running_stack(nats_url, pg_dsn, wire, require_accounts=True) as gateway:
        said = await refusal(gateway.call("Control", "ListFederations", FEDERATIONS))
        log = await refusal(follow(gateway, 1, None, "StreamLogs"))

    assert said.code == log.code == ErrorCode.FORBIDDEN_ACTION
    assert "--accounts" in said.text
