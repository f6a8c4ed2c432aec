"""People log in with accounts of an OIDC issuer; the issuer is real, and may be away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from flower_nats.model.account import account_token_hash
from flower_nats.model.errors import ErrorCode
from flower_nats.settings import OidcSettings, TlsFiles
from flower_nats.wire import control_pb2 as control
from harness.certificates import create_server_certificates
from harness.flower import Flower
from harness.flower_environments import LAST_OVER_GRPC, environment, installed
from harness.oidc_issuer import SECRET, OidcIssuer, sign_in, why_not
from tests.integration.gateways import free_address, running_gateway
from tests.integration.stock_login import StockCli, ended, stock_cli
from tests.integration.superlinks import Superlink, refused, running_superlink

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OidcIssuer]:
    issuer = OidcIssuer(tmp_path_factory.mktemp("issuer"))
    await issuer.start()
    yield issuer
    await issuer.stop()


@dataclass(frozen=True)
class Runtime:
    """Two superlinks that ask the issuer."""

    superlink: Superlink
    issuer: OidcIssuer

    async def tokens(
        self, details: control.GetLoginDetailsResponse
    ) -> control.GetAuthTokensResponse:
        await self.superlink.database.execute("UPDATE device_login SET poll_at = NULL")
        return await self.superlink.auth_tokens(details.device_code)

    async def log_in(self, name: str) -> control.GetAuthTokensResponse:
        details = await self.superlink.begin_login()
        await sign_in(details.verification_uri_complete, name, self.issuer.certificates)
        return await self.tokens(details)

    async def nodes(self, token: str) -> None:
        await self.superlink.call(
            "Control",
            "ListNodes",
            control.ListNodesRequest(),
            control.ListNodesResponse,
            account_token=account_token_hash(token),
        )

    async def accounts(self) -> dict[str, str]:
        """Return the roles of all accounts, by name."""
        found = (await self.superlink.command("ListAccounts"))["accounts"]
        return {one["name"]: one["role"] for one in found}

    async def age(self, seconds: float) -> None:
        """Move the last answer of the issuer into the past."""
        await self.superlink.database.execute(
            "UPDATE account_session "
            "SET issuer_seen_at = issuer_seen_at - make_interval(secs => %(s)s)",
            s=seconds,
        )

    async def end_access_tokens(self) -> None:
        await self.superlink.database.execute(
            "UPDATE account_token SET expires_at = now() WHERE kind = 'access'"
        )


@asynccontextmanager
async def _stock_cli(
    nats_url: str, runtime: Runtime, folder: Path, version: str
) -> AsyncIterator[StockCli]:
    certificates = create_server_certificates(folder)
    tls = TlsFiles(certificates.certificate, certificates.key, certificates.ca_certificate)
    async with running_gateway(
        runtime.superlink, nats_url, http_api_address=free_address(), tls=tls
    ) as gateway:
        yield stock_cli(Flower(environment(version)), gateway, folder / "home", certificates)


@pytest.fixture
def oidc(issuer: OidcIssuer) -> OidcSettings:
    return OidcSettings(url=issuer.url, client_id="public", operator_group="admins")


@pytest_asyncio.fixture(loop_scope="module")
async def runtime(
    nats_url: str, pg_dsn: str, issuer: OidcIssuer, oidc: OidcSettings
) -> AsyncIterator[Runtime]:
    given = {"accounts": True, "oidc": oidc}
    async with (
        running_superlink(nats_url, pg_dsn, **given) as superlink,
        running_superlink(nats_url, pg_dsn, **given),
    ):
        yield Runtime(superlink, issuer)


async def test_a_person_logs_in_and_is_named_and_an_operator_by_what_the_issuer_says(
    runtime: Runtime,
) -> None:
    details = await runtime.superlink.begin_login()
    waiting = await runtime.tokens(details)
    await sign_in(details.verification_uri_complete, "ana")
    tokens = await runtime.tokens(details)
    await runtime.log_in("opal")
    await runtime.log_in("ana")

    assert waiting.access_token == ""
    await runtime.nodes(tokens.access_token)
    assert await runtime.accounts() == {
        "ana-hospital.example": "user",
        "opal-hospital.example": "operator",
    }


async def test_what_the_issuer_changes_of_accounts_is_in_the_audit_trail(runtime: Runtime) -> None:
    tokens = await runtime.log_in("opal")
    # For the runtime this looks like a changed group at the issuer.
    await runtime.superlink.command("SetAccountRole", name="opal-hospital.example", role="user")
    await runtime.age(61)
    await runtime.superlink.refresh_tokens(tokens.refresh_token)

    asked = {"object": None, "outcome": None, "since": None, "action": None, "after": 0}
    found = await runtime.superlink.command("AuditEvents", account="(ISSUER)", **asked)

    assert [(one["action"], one["object"], one["outcome"]) for one in found["events"]] == [
        ("CreateAccount", "account opal-hospital.example, operator", "done"),
        ("SetAccountRole", "account opal-hospital.example, operator", "done"),
    ]


@pytest.mark.parametrize("client", ["basic", "post"])
async def test_a_client_with_a_secret_proves_itself_in_the_way_that_the_issuer_wants(
    nats_url: str, pg_dsn: str, issuer: OidcIssuer, oidc: OidcSettings, tmp_path: Path, client: str
) -> None:
    await _log_in_with_a_secret(nats_url, pg_dsn, issuer, replace(oidc, client_id=client), tmp_path)


async def test_a_client_is_named_in_the_form_for_issuers_that_read_nothing_else(
    nats_url: str, pg_dsn: str, oidc: OidcSettings, tmp_path: Path
) -> None:
    issuer = OidcIssuer(tmp_path, form_only=True)
    await issuer.start()
    try:
        given = replace(oidc, url=issuer.url, client_id="post")
        await _log_in_with_a_secret(nats_url, pg_dsn, issuer, given, tmp_path)
    finally:
        await issuer.stop()


async def _log_in_with_a_secret(
    nats_url: str, pg_dsn: str, issuer: OidcIssuer, oidc: OidcSettings, folder: Path
) -> None:
    """Log in, and renew the login at the issuer."""
    secret = folder / "secret"
    secret.write_text(f"{SECRET}\n")
    given = replace(oidc, client_secret_file=secret)
    async with running_superlink(nats_url, pg_dsn, accounts=True, oidc=given) as superlink:
        runtime = Runtime(superlink, issuer)
        tokens = await runtime.log_in("ana")
        await runtime.age(61)
        renewed = await superlink.refresh_tokens(tokens.refresh_token)
        await runtime.nodes(renewed.access_token)


async def test_a_token_for_somebody_else_lets_nobody_in(
    nats_url: str, pg_dsn: str, issuer: OidcIssuer, oidc: OidcSettings
) -> None:
    given = replace(oidc, audience="another runtime")
    async with running_superlink(nats_url, pg_dsn, accounts=True, oidc=given) as superlink:
        with refused(ErrorCode.NO_PERMISSIONS, "refused"):
            await Runtime(superlink, issuer).log_in("ana")


async def test_an_issuer_with_an_authority_of_its_own_is_believed_by_that_alone(
    nats_url: str, pg_dsn: str, oidc: OidcSettings, tmp_path: Path
) -> None:
    issuer = OidcIssuer(tmp_path, create_server_certificates(tmp_path))
    (tmp_path / "other").mkdir()
    others = create_server_certificates(tmp_path / "other")
    assert issuer.certificates is not None
    given = replace(oidc, url=issuer.url, ca_certificate=issuer.certificates.ca_certificate)
    await issuer.start()
    try:
        async with running_superlink(nats_url, pg_dsn, accounts=True, oidc=given) as superlink:
            runtime = Runtime(superlink, issuer)
            tokens = await runtime.log_in("ana")
            await runtime.nodes(tokens.access_token)
        for authority in (None, others.ca_certificate):
            given = replace(given, ca_certificate=authority)
            async with running_superlink(nats_url, pg_dsn, accounts=True, oidc=given) as superlink:
                with refused(ErrorCode.ISSUER_AWAY, issuer.url):
                    await superlink.begin_login()
    finally:
        await issuer.stop()


async def test_the_issuer_is_asked_again_when_tokens_are_renewed_and_may_end_the_login(
    runtime: Runtime,
) -> None:
    first = await runtime.log_in("ana")
    at_once = await runtime.superlink.refresh_tokens(first.refresh_token)
    await runtime.age(61)
    asked = await runtime.superlink.refresh_tokens(at_once.refresh_token)
    await runtime.age(61)
    again = await runtime.superlink.refresh_tokens(asked.refresh_token)
    await runtime.age(61)
    await runtime.issuer.stop()
    await runtime.issuer.start()  # The issuer has forgotten all logins.

    await runtime.nodes(again.access_token)
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await runtime.superlink.refresh_tokens(again.refresh_token)
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await runtime.nodes(again.access_token)


async def test_with_the_issuer_away_people_go_on_until_their_token_ends_and_others_are_told(
    runtime: Runtime,
) -> None:
    tokens = await runtime.log_in("ana")
    await runtime.age(61)
    await runtime.issuer.stop()
    try:
        await runtime.nodes(tokens.access_token)
        with refused(ErrorCode.ISSUER_AWAY, runtime.issuer.url):
            await runtime.superlink.begin_login()
        with refused(ErrorCode.ISSUER_AWAY, runtime.issuer.url):
            await runtime.superlink.refresh_tokens(tokens.refresh_token)
    finally:
        await runtime.issuer.start()
    await runtime.nodes(tokens.access_token)


async def test_keys_that_the_issuer_has_turned_are_fetched(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flower_nats.superlink.accounts.oidc._KEYS_PAUSE", 0.0)
    await runtime.log_in("ana")
    await runtime.issuer.stop()
    runtime.issuer.turn_keys()
    await runtime.issuer.start()

    tokens = await runtime.log_in("ana")

    await runtime.nodes(tokens.access_token)


async def test_a_disabled_account_gets_no_tokens(runtime: Runtime) -> None:
    await runtime.log_in("ana")
    await runtime.superlink.command("DisableAccount", name="ana-hospital.example")

    with refused(ErrorCode.NO_PERMISSIONS, "is disabled"):
        await runtime.log_in("ana")


async def test_what_the_issuer_gave_is_sealed(runtime: Runtime) -> None:
    tokens = await runtime.log_in("ana")
    [session] = await runtime.superlink.database.fetch_all("SELECT * FROM account_session")

    assert len(session["issuer_token"]) > 40
    assert tokens.refresh_token.encode() not in session["issuer_token"]


@pytest.mark.parametrize(
    "version",
    [
        LAST_OVER_GRPC,
        *(
            pytest.param(one, marks=pytest.mark.long)
            for one in ("1.36.0", str(installed().version))
        ),
    ],
)
async def test_stock_commands_log_in_at_the_issuer(
    nats_url: str, runtime: Runtime, tmp_path: Path, version: str
) -> None:
    async with _stock_cli(nats_url, runtime, tmp_path, version) as cli:
        process, url = await cli.login()
        await sign_in(url, "ana")
        code, said = await ended(process)
        listed = await cli.run("federation", "list")

    assert url.startswith(runtime.issuer.url)
    assert code == 0, said
    assert listed[0] == 0, listed


@pytest.mark.parametrize(
    "version",
    [
        *(pytest.param(one, marks=pytest.mark.long) for one in ("1.32.1", LAST_OVER_GRPC)),
        str(installed().version),
    ],
)
async def test_stock_commands_say_a_sentence_and_end_while_the_issuer_is_away(
    nats_url: str, runtime: Runtime, tmp_path: Path, version: str
) -> None:
    async with _stock_cli(nats_url, runtime, tmp_path, version) as cli:
        process, url = await cli.login()
        await sign_in(url, "ana")
        assert (await ended(process))[0] == 0
        process, _ = await cli.login()
        await runtime.issuer.stop()
        try:
            under_way, begun = await ended(process), await cli.run("login")
            logged_in = await cli.run("federation", "list")
            await runtime.age(61)
            await runtime.end_access_tokens()
            token_ended = await cli.run("federation", "list")
        finally:
            await runtime.issuer.start()

    assert logged_in[0] == 0, logged_in
    for code, said in (under_way, begun, token_ended):
        assert code == 1, said
        assert "The OIDC issuer, which authenticates people, does not answer" in said
        assert runtime.issuer.url in said
