"""A console for other machines: it speaks TLS, and asks for a login."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from flower_nats.broker.connection import Connection
from flower_nats.model.account import account_token_hash, new_token
from flower_nats_cli.console import console as command
from harness.certificates import create_server_certificates
from tests.integration.consoles import running_console


async def test_who_logs_in_gets_a_cookie_that_stays_with_this_host_and_is_sent_encrypted(
    connection: Connection, nats_url: str, pg_dsn: str, tmp_path: Path
) -> None:
    made = create_server_certificates(tmp_path)
    async with running_console(nats_url, pg_dsn, tls=made, accounts=True) as console:
        superlink, http = console.gateway.superlink, console.http
        await superlink.command("CreateAccount", name="ana", role="operator", password_hash="")
        token = new_token("token")
        await superlink.command(
            "CreateAccountToken",
            name="ana",
            token="console",
            token_hash=account_token_hash(token),
            days=1,
        )
        asked = await http.get("/")
        own = {"origin": f"https://{console.address}", "sec-fetch-site": "same-origin"}
        await http.post("/login", data={"token": "of nobody"}, headers=own)
        refused = await http.get("/")
        told = await http.get(refused.headers["location"])
        done = await http.post("/login", data={"token": token}, headers=own)
        page = await http.get("/")
        elsewhere = await http.post(
            "/logout", headers={"origin": f"http://{console.address}", "sec-fetch-site": "none"}
        )
        still = await http.get("/runs.json")
        left = await http.post("/logout", headers=own)
        after = await http.get("/runs.json")
        named = await http.get("/login", headers={"host": "localhost"})

    assert (asked.status_code, asked.headers["location"]) == (303, "/login")
    cookie = done.headers["set-cookie"]
    assert cookie.startswith("__Host-flower_nats_console=")
    assert {"secure", "httponly", "samesite=strict", "path=/"} <= {
        one.strip().lower() for one in cookie.split(";")
    }
    assert "The token is not known" in told.text
    assert token not in page.text
    assert "Log out" in page.text
    assert "certificate of this console" in page.text
    assert "max-age=" in page.headers["strict-transport-security"]
    assert elsewhere.status_code == 403
    assert still.status_code == 200
    assert left.status_code == 303
    assert after.status_code == 401
    assert named.status_code == 200


async def test_what_has_no_accounts_is_shown_to_nobody_else(
    connection: Connection, nats_url: str, pg_dsn: str, tmp_path: Path
) -> None:
    made = create_server_certificates(tmp_path)
    async with running_console(nats_url, pg_dsn, tls=made) as console:
        app = await console.gateway.server_app()
        answers = [await console.http.get(f"/runs{path}.json") for path in ("", f"/{app.run_id}")]
        stop = await console.http.post(
            f"/runs/{app.run_id}/stop", headers={"origin": f"https://{console.address}"}
        )

    assert [one.status_code for one in answers] == [403, 403]
    assert stop.status_code == 403
    assert "--accounts" in answers[0].json()["error"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--address", "0.0.0.0:9090"], "has no TLS"),
        (["--ssl-certfile", "server.pem"], "belong together"),
        (["--ssl-certfile", "server.pem", "--ssl-keyfile", "server.pem"], "private key"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    flags: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_server_certificates(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, ["--nats", "nats://127.0.0.1:4222", *flags])

    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
