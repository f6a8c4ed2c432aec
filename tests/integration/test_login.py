"""`flwr login` with accounts of the runtime: stock commands over TLS, and the login page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flower_nats.model.errors import ErrorCode
from flower_nats.model.password import hash_password
from flower_nats.settings import TlsFiles
from flower_nats.wire import control_pb2 as control
from harness.certificates import ServerCertificates, create_server_certificates
from harness.flower import Flower
from harness.flower_environments import LAST_OVER_GRPC, environment, installed
from tests.integration.gateways import Gateway, free_address, refusal, running_gateway
from tests.integration.stock_login import StockCli, browser, ended, sign_in, stock_cli
from tests.integration.superlinks import Superlink, refused, running_superlink
from tests.integration.test_accounts import flower_nats

PASSWORD = "correct horse battery"
NAME = "ana"


@dataclass(frozen=True)
class Runtime:
    """Two gateways and two superlinks with accounts, over TLS."""

    gateway: Gateway
    other: Gateway
    certificates: ServerCertificates

    @property
    def superlink(self) -> Superlink:
        return self.gateway.superlink

    def cli(self, flower: Flower, home: Path) -> StockCli:
        return stock_cli(flower, self.gateway, home, self.certificates)

    async def begin(self) -> control.GetLoginDetailsResponse:
        return await self.superlink.begin_login(address="10.0.0.7")

    async def tokens(self, device_code: str) -> control.GetAuthTokensResponse:
        return await self.superlink.auth_tokens(device_code)

    def url(self, details: control.GetLoginDetailsResponse) -> str:
        """Return the address of the login page at the other gateway."""
        code = details.verification_uri_complete
        return f"{self.other.settings.login_url}/v1/control/login{code}"

    async def age(self, column: str, seconds: float) -> None:
        """Make all tokens older."""
        await self.superlink.database.execute(
            f"UPDATE account_token SET {column} = {column} - make_interval(secs => %(s)s)",
            s=seconds,
        )


@pytest.fixture
async def runtime(nats_url: str, pg_dsn: str, tmp_path: Path) -> AsyncIterator[Runtime]:
    certificates = create_server_certificates(tmp_path)
    tls = TlsFiles(certificates.certificate, certificates.key, certificates.ca_certificate)

    def own() -> dict[str, Any]:
        address = free_address()
        return {
            "http_api_address": address,
            "tls": tls,
            "login_url": f"https://{address.replace('127.0.0.1', 'localhost')}",
        }

    async with (
        running_superlink(nats_url, pg_dsn, accounts=True) as superlink,
        running_superlink(nats_url, pg_dsn, accounts=True),
        running_gateway(superlink, nats_url, **own()) as gateway,
        running_gateway(superlink, nats_url, **own()) as other,
    ):
        hashed = hash_password(PASSWORD)
        await superlink.command("CreateAccount", name=NAME, role="user", password_hash=hashed)
        yield Runtime(gateway, other, certificates)


@pytest.mark.parametrize(
    "version",
    [LAST_OVER_GRPC, pytest.param("1.36.0", marks=pytest.mark.long), str(installed().version)],
)
async def test_a_person_logs_in_and_stays_so_when_the_access_token_ends(
    runtime: Runtime, tmp_path: Path, version: str
) -> None:
    cli = runtime.cli(Flower(environment(version)), tmp_path / "home")
    without = await cli.run("federation", "list")
    process, url = await cli.login()
    async with browser(runtime.certificates) as client:
        page = await client.get(url)
        done = await sign_in(client, url, NAME, PASSWORD)
    code, said = await ended(process)
    listed = await cli.run("federation", "list")
    first = cli.credentials
    await runtime.age("expires_at", 900.0)
    no_such_run = await cli.run("log", "12345")
    renewed = cli.credentials
    again = await cli.run("federation", "list")

    assert without[0] != 0
    assert "flwr login" in without[1]
    assert page.status_code == done.status_code == 200
    assert "You are logged in" in done.text
    assert code == 0, said
    assert "Login successful" in said
    assert listed[0] == again[0] == 0, (listed, again)
    assert "not found" in no_such_run[1].lower()
    assert renewed != first
    assert cli.credentials == renewed


async def test_a_wrong_password_lets_nobody_in_and_many_lock_the_account(
    runtime: Runtime,
) -> None:
    details = await runtime.begin()
    url = runtime.url(details)
    async with browser(runtime.certificates) as client:
        wrong = [await sign_in(client, url, NAME, f"wrong password {n}") for n in range(5)]
        locked = await sign_in(client, url, NAME, PASSWORD)
        unknown = await sign_in(client, url, "nobody", PASSWORD)
    waiting = await runtime.tokens(details.device_code)

    assert all("is wrong" in page.text and page.status_code == 403 for page in wrong)
    assert "Too many wrong passwords" in locked.text
    assert "is wrong" in unknown.text
    assert waiting.access_token == ""


async def test_a_lock_ends_and_a_right_password_forgets_the_failures(runtime: Runtime) -> None:
    details = await runtime.begin()
    url, database = runtime.url(details), runtime.superlink.database
    async with browser(runtime.certificates) as client:
        for number in range(5):
            await sign_in(client, url, NAME, f"wrong password {number}")
        await database.execute("UPDATE login_failure SET locked_until = now()")
        done = await sign_in(client, url, NAME.upper(), PASSWORD)
    left = await database.fetch_all("SELECT * FROM login_failure")
    events = await database.fetch_all(
        "SELECT account_name, address, outcome FROM audit_event WHERE action = 'ConfirmLogin'"
    )

    assert "You are logged in" in done.text
    # Failures do not count for this machine either, because many people may sign in from it.
    assert left == []
    assert {(one["account_name"].lower(), one["address"]) for one in events} == {
        (NAME, "127.0.0.1")
    }
    assert [one["outcome"] for one in events] == [*["wrong"] * 5, "done"]
    assert (await runtime.tokens(details.device_code)).access_token


async def test_a_login_is_refused_on_its_page(runtime: Runtime) -> None:
    details = await runtime.begin()
    async with browser(runtime.certificates) as client:
        page = await sign_in(client, runtime.url(details), "", "", answer="refuse")
    events = await runtime.superlink.database.fetch_all(
        "SELECT * FROM audit_event WHERE action LIKE '%%Login'"
    )

    # The person is unknown.
    assert [(one["action"], one["account_name"], one["address"]) for one in events] == [
        ("RefuseLogin", "", "127.0.0.1")
    ]
    assert "was refused" in page.text
    with refused(ErrorCode.NO_PERMISSIONS, "refused"):
        await runtime.tokens(details.device_code)


async def test_a_code_that_is_unknown_or_over_says_so(runtime: Runtime) -> None:
    details = await runtime.begin()
    await runtime.superlink.database.execute("UPDATE device_login SET expires_at = now()")
    async with browser(runtime.certificates) as client:
        over = await client.get(runtime.url(details))
        odd = await client.get(f"{runtime.gateway.settings.login_url}/v1/control/login?code=%00x")

    assert over.status_code == odd.status_code == 404
    assert "unknown" in over.text
    with refused(ErrorCode.NO_PERMISSIONS, "flwr login"):
        await runtime.tokens(details.device_code)


async def test_a_program_calls_with_a_token_that_has_a_name(
    runtime: Runtime, nats_url: str, tmp_path: Path
) -> None:
    cli = runtime.cli(Flower(installed()), tmp_path / "home")
    address = runtime.gateway.settings.http_api_address.replace("127.0.0.1", "localhost")
    words = ("account", "token", "create", NAME, "ci", "--credentials-for", address)
    made = await flower_nats(*words, "--nats", nats_url)
    (cli.home / "credentials.yaml").write_text(made.stdout)

    code, said = await cli.run("federation", "list")

    assert code == 0, (made.stderr, said)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "https://[bad"},
    ],
    ids=str,
)
async def test_a_form_that_another_site_sends_does_nothing(
    runtime: Runtime, headers: dict[str, str]
) -> None:
    details = await runtime.begin()
    async with browser(runtime.certificates) as client:
        page = await sign_in(client, runtime.url(details), NAME, PASSWORD, headers)

    assert page.status_code == 403
    assert (await runtime.tokens(details.device_code)).access_token == ""


async def test_the_page_lets_nothing_else_in_and_stays_in_no_cache(runtime: Runtime) -> None:
    async with browser(runtime.certificates) as client:
        page = await client.get(runtime.url(await runtime.begin()))

    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["x-frame-options"] == "DENY"
    assert "<script" not in page.text
    assert "10.0.0.7" in page.text


async def logged_in(runtime: Runtime) -> control.GetAuthTokensResponse:
    details = await runtime.begin()
    async with browser(runtime.certificates) as client:
        await sign_in(client, runtime.url(details), NAME, PASSWORD)
    return await runtime.tokens(details.device_code)


async def test_a_refresh_token_that_was_replaced_works_for_a_minute_and_then_ends_the_login(
    runtime: Runtime,
) -> None:
    first = await logged_in(runtime)
    second = await runtime.superlink.refresh_tokens(first.refresh_token)
    beside = await runtime.superlink.refresh_tokens(first.refresh_token)
    await runtime.superlink.refresh_tokens(second.refresh_token)
    await runtime.age("replaced_at", 61.0)

    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await runtime.superlink.refresh_tokens(first.refresh_token)
    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await runtime.superlink.refresh_tokens(beside.refresh_token)


async def test_another_password_ends_the_logins_of_the_old_one(runtime: Runtime) -> None:
    tokens = await logged_in(runtime)
    changed = hash_password("another password")
    await runtime.superlink.command("SetAccountPassword", name=NAME, password_hash=changed)

    with refused(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED):
        await runtime.superlink.refresh_tokens(tokens.refresh_token)


async def test_tokens_and_passwords_are_kept_as_hashes_alone(runtime: Runtime) -> None:
    tokens = await logged_in(runtime)
    secrets = [tokens.access_token, tokens.refresh_token, PASSWORD]
    for table in ("account", "account_session", "account_token", "device_login", "answer"):
        rows = await runtime.superlink.database.fetch_all(f"SELECT t::text AS row FROM {table} t")
        for row in rows:
            assert not [secret for secret in secrets if secret in row["row"]], table


async def test_a_gateway_without_tls_says_that_there_is_no_page(nats_url: str, pg_dsn: str) -> None:
    async with (
        running_superlink(nats_url, pg_dsn, accounts=True) as superlink,
        running_gateway(superlink, nats_url, "http") as gateway,
    ):
        said = await refusal(
            gateway.call("Control", "GetLoginDetails", control.GetLoginDetailsRequest())
        )

    assert said.code == ErrorCode.FORBIDDEN_ACTION
    assert "--login-url" in said.text
