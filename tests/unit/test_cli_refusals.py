"""Wrong command lines are refused in a sentence, before anything is tried."""

from __future__ import annotations

import codecs
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from flower_nats.embedded.process import private_file
from flower_nats.store.dsn import check_dsn
from flower_nats_cli.main import main
from harness.certificates import create_server_certificates
from harness.commands import commands
from harness.environment import SCRIPTS

NATS = ["--nats", "nats://127.0.0.1:1"]
DATABASE = ["--database", "postgresql://127.0.0.1:1/x"]
GATEWAY = ["gateway", "--insecure", *NATS]
SUPERLINK = ["superlink", "--isolation", "process", *NATS, *DATABASE]
SECURE = ["--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key"]
TLS = [*SECURE, "--ssl-ca-certfile", "ca.crt"]
APPIO_TLS = [flag.replace("--ssl", "--appio-ssl") for flag in TLS]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the commands, with files of many kinds."""
    monkeypatch.chdir(tmp_path)
    # Commands redirect the log of this process to a stream that no later test can write to.
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers])
    files = create_server_certificates(tmp_path)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hush"),
    )
    (tmp_path / "encrypted.key").write_bytes(encrypted)
    other = tmp_path / "other"
    other.mkdir()
    create_server_certificates(other)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    return tmp_path


def refusal(*command: str) -> str:
    """Run a command that must be refused; return the line with the reason."""
    result = CliRunner().invoke(main, command)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    *usage, line = result.output.splitlines()
    assert line.startswith("Error: ")
    assert not [text for text in usage if "Error" in text]
    return line


@pytest.mark.parametrize(
    ("command", "named", "remedy"),
    [
        ([*GATEWAY, "--log-file", "nowhere/x.log"], "nowhere/x.log", "create it"),
        ([*SUPERLINK, "--log-file", "nowhere/x.log"], "nowhere/x.log", "create it"),
        (["up", "--log-file", "nowhere/x.log"], "nowhere/x.log", "create it"),
        ([*GATEWAY, "--log-file", "file/x.log"], "file/x.log", "another --log-file"),
        ([*GATEWAY, "--log-file", "other"], "'other' is a directory", ""),
        (["up", "--data-dir", "file"], "'file' is a file", ""),
        (["up", "--data-dir", ""], "The path is empty", ""),
        (["status", "--data-dir", ""], "The path is empty", ""),
        (["up", "--data-dir", "b\udcff"], "not UTF-8", "choose another"),
        (["up", "--data-dir", "file/x"], "file/x", "another --data-dir"),
        (["up", "--data-dir", "/proc/x"], "/proc/x", "another --data-dir"),
        (["down", "--data-dir", "file/x"], "file/x", "another --data-dir"),
        (["status", "--data-dir", "file/x"], "file/x", "another --data-dir"),
    ],
)
def test_a_place_where_nothing_can_be_kept(command: list[str], named: str, remedy: str) -> None:
    line = refusal(*command)

    assert named in line
    assert remedy in line


@pytest.mark.parametrize(
    "url",
    [
        "nats://h:notaport",
        "nats://h:99999",
        "nats://h:0",
        "nats://",
        "nats://[::1",
        "http://h:4222",
        "ws://h:4222",
        "nats://two hosts:4222",
        "user:hush@h:4222",
        "nats://user:hush@h:notaport",
        "nats://user:hush",
        "nats://a:4222,,nats://b:4222",
        "nats://a:4222,nats://user:hush@b:x",
        "nats://user:hush@a..b:4222",
        f"nats://{'a' * 64}:4222",
    ],
)
@pytest.mark.parametrize(
    "command", [["gateway", "--insecure"], ["superlink", *DATABASE], ["status"]]
)
def test_what_is_no_url_of_a_nats_server(command: list[str], url: str) -> None:
    line = refusal(*command, "--nats", url)

    assert "--nats" in line
    assert "nats://HOST:PORT" in line
    assert "hush" not in line


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "",
        "postgresql://h:notaport/x",
        "postgresql://h:99999/x",
        "host=a,b port=1,2,3",
        "host=a port=1,",
        "host=a hostaddr=10.0.0.1,10.0.0.2 port=1,2,3",
        "postgresql://[::1/x",
        "postgresql://u:%zz@h/x",
        "postgresql://u:hu/sh@h/x",
        "host=h port=many",
        "host=h unheard_of=1",
        "mysql://u:hush@h/x",
        "postgresql://u:hush@a..b/x",
        "host=a,b..c",
    ],
)
def test_what_is_no_url_of_a_database(url: str) -> None:
    line = refusal("superlink", "--isolation", "process", *NATS, "--database", url)

    assert "--database" in line
    assert "postgresql://USER:PASSWORD@HOST/DATABASE" in line
    assert "hu" not in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush@a:5432,b:5433/x",
        "postgresql://u:hush@a,b/x",
        "postgresql:///x?host=/run/postgresql",
        "host=a,b port=5432",
        "host=a,b port=,5433",
        "hostaddr=10.0.0.1,10.0.0.2 port=5432,5433 dbname=x",
        "host=a,b hostaddr=10.0.0.1,10.0.0.2 port=5432,5433",
        # The hosts come from PGHOST here.
        "port=5432,5433 dbname=x",
        "service=flower",
    ],
)
def test_what_is_an_url_of_a_database(url: str) -> None:
    check_dsn(url)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--ssl-certfile", "empty", *TLS[2:]], "--ssl-certfile"),
        (["--ssl-certfile", "binary", *TLS[2:]], "--ssl-certfile"),
        (["--ssl-certfile", "server.key", *TLS[2:]], "--ssl-certfile"),
        (["--ssl-certfile", "other", *TLS[2:]], "'other' is a directory"),
        (["--ssl-certfile", "nowhere", *TLS[2:]], "'nowhere' does not exist"),
        ([*TLS, "--ssl-keyfile", "binary"], "--ssl-keyfile"),
        ([*TLS, "--ssl-keyfile", "server.pem"], "--ssl-keyfile"),
        ([*TLS, "--ssl-keyfile", "encrypted.key"], "without a password"),
        ([*TLS, "--ssl-keyfile", "other/server.key"], "is not the key of"),
        ([*TLS, "--ssl-ca-certfile", "binary"], "--ssl-ca-certfile"),
        ([*TLS, "--ssl-ca-certfile", "empty"], "--ssl-ca-certfile"),
        ([*TLS, *APPIO_TLS, "--appio-ssl-keyfile", "empty"], "--appio-ssl-keyfile"),
    ],
)
@pytest.mark.parametrize("command", [["gateway", *NATS], ["up"]])
def test_certificates_that_cannot_be_served(
    command: list[str], flags: list[str], named: str
) -> None:
    assert named in refusal(*command, *flags)


def test_a_superlink_whose_superexec_could_trust_nobody() -> None:
    line = refusal("superlink", *NATS, *DATABASE, "--ssl-ca-certfile", "binary")

    assert "--ssl-ca-certfile" in line


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("empty", "is empty"),
        ("nowhere", "'nowhere' does not exist"),
        ("other", "'other' is a directory"),
    ],
)
@pytest.mark.parametrize("command", [GATEWAY, ["superlink", *NATS, *DATABASE], ["up"]])
def test_a_superexec_secret_that_is_none(command: list[str], file: str, named: str) -> None:
    assert named in refusal(*command, "--superexec-auth-secret-file", file)


@pytest.mark.parametrize(
    "address", ["h", "9092", ":9092", "h:", "h:port", "h:65536", "h:-1", "::1"]
)
@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (GATEWAY, "--fleet-api-address"),
        (GATEWAY, "--control-api-address"),
        (GATEWAY, "--http-api-address"),
        (GATEWAY, "--http-loopback-address"),
        (GATEWAY, "--serverappio-api-address"),
        (GATEWAY, "--health-server-address"),
        (GATEWAY, "--http-health-address"),
        (SUPERLINK, "--http-health-address"),
        (SUPERLINK, "--runtime-api-address"),
        (["up"], "--http-api-address"),
        (["up"], "--fleet-api-address"),
    ],
)
def test_what_is_no_address(command: list[str], flag: str, address: str) -> None:
    line = refusal(*command, flag, address)

    assert flag in line
    assert "127.0.0.1:9092" in line


@pytest.mark.parametrize("command", [GATEWAY, ["up"]])
@pytest.mark.parametrize(
    ("first", "second"),
    [("127.0.0.1:7000", "127.0.0.1:7000"), ("0.0.0.0:7000", "127.0.0.1:7000")],
)
def test_two_apis_on_one_address(command: list[str], first: str, second: str) -> None:
    line = refusal(*command, "--fleet-api-address", first, "--control-api-address", second)

    assert "--fleet-api-address" in line
    assert "--control-api-address" in line
    assert "7000" in line


@pytest.mark.parametrize("command", [GATEWAY, ["up"]])
def test_http_and_grpc_on_one_port(command: list[str]) -> None:
    line = refusal(*command, "--port", "9092")

    assert "--http-api-address" in line
    assert "--fleet-api-address" in line


@pytest.mark.parametrize("command", [GATEWAY, ["up"]])
@pytest.mark.parametrize("other", [["--host", "10.0.0.1"], ["--port", "443"]])
def test_the_address_of_http_said_twice(command: list[str], other: list[str]) -> None:
    line = refusal(*command, "--http-api-address", "127.0.0.1:7000", *other)

    assert "--http-api-address" in line
    assert "leave one of them out" in line


@pytest.mark.parametrize("command", [GATEWAY, ["up", "--isolation", "process"]])
def test_nothing_to_serve(command: list[str]) -> None:
    apis = ("http", "serverappio", "fleet", "control")

    line = refusal(*command, *(f"--{api}-api-address=none" for api in apis))

    assert all(f"--{api}-api-address" in line for api in apis)


def test_a_port_in_the_clear_that_is_not_of_this_machine_alone() -> None:
    line = refusal(*GATEWAY, "--http-loopback-address", "0.0.0.0:7000")

    # An address on all interfaces includes this machine, but also lets others in.
    assert "--http-loopback-address" in line
    assert "0.0.0.0:7000" in line


def test_health_addresses_that_reach_beyond_the_last_port() -> None:
    line = refusal("up", "--replicas", "2", "--http-health-address", "127.0.0.1:65533")

    assert "--http-health-address" in line
    assert "65532" in line


def test_health_addresses_that_reach_into_those_of_an_api() -> None:
    line = refusal("up", "--replicas", "2", "--http-health-address", "127.0.0.1:9088")

    assert "--http-health-address (gateway-2)" in line
    assert "--serverappio-api-address" in line
    assert "9091" in line


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\xff\xfe[up]", "not UTF-8"),
        (b"[up", "is not TOML"),
        (b"[upp]\nreplicas = 2", "upp"),
        (b"[up]\nreplica = 2", "replica"),
        (b"replicas = 2", "replicas"),
        (b'[gateway]\nnats = ["nats://a", "nats://b"]', "nats"),
        (b"[up]\ndata-dir = []", "data-dir"),
        (b'[up]\nreplicas = "many"', "many"),
    ],
)
def test_a_configuration_file_that_says_nothing_we_know(
    content: bytes, named: str, folder: Path
) -> None:
    (folder / "config.toml").write_bytes(content)

    assert named in refusal("--config", "config.toml", "up")


@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
def test_the_configuration_file_may_name_any_option(folder: Path, start: bytes) -> None:
    content = b'[status]\nformat = "json"\ndata-dir = 5\n'
    (folder / "config.toml").write_bytes(start + content)

    result = CliRunner().invoke(main, ["--config", "config.toml", "status"])

    assert '"data_dir": ' in result.output
    assert str(folder / "5") in result.output


@pytest.mark.parametrize("value", ['"runs"', '["nodes", "runs"]'])
def test_an_option_that_can_be_repeated_is_one_value_or_a_list(folder: Path, value: str) -> None:
    (folder / "config.toml").write_text(f'[webhook]\nkind = {value}\ndata-dir = "nowhere"\n')

    result = CliRunner().invoke(main, ["--config", "config.toml", "webhook", "add", "http://a"])

    assert "No runtime has been started" in result.output


def test_every_option_has_the_variable_of_its_flag() -> None:
    for command in commands().values():
        for option in options_of(command):
            flags = [flag.lstrip("-").replace("-", "_") for flag in option.opts]
            assert option.name in flags or not option.allow_from_autoenv


def options_of(command: click.Command) -> Iterator[click.Option]:
    if isinstance(command, click.Group):
        for member in command.commands.values():
            yield from options_of(member)
    yield from (one for one in command.params if isinstance(one, click.Option))


@pytest.mark.parametrize("descriptor", [0, 1, 2])
@pytest.mark.parametrize("command", [["status"], ["down"], ["connect"], ["account", "create", "x"]])
def test_a_standard_stream_may_be_closed(descriptor: int, command: list[str]) -> None:
    program = [str(SCRIPTS / "flower-nats"), *command, "--data-dir", "nowhere"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {descriptor}>&-', "sh", *program],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)
    assert done.stderr or descriptor or command == ["status"]


def test_output_that_finds_no_room_is_told_in_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [str(SCRIPTS / "flower-nats"), "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert "Traceback" not in done.stderr
    assert "No space left on device. Remedy: make room" in done.stderr


@pytest.mark.parametrize("since", ["0001-01-01", "9999-12-31T23:59:59"])
def test_a_moment_that_no_time_zone_has(since: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata" if since < "1" else "America/New_York")
    time.tzset()

    line = refusal("audit", "--since", since, *NATS)

    monkeypatch.undo()
    time.tzset()
    assert "--since" in line
    assert "time zone" in line


@pytest.mark.parametrize("content", [b"\xff" * 12, b"one line\nand another one\n"])
def test_a_file_that_holds_no_password(folder: Path, content: bytes) -> None:
    (folder / "password").write_bytes(content)

    line = refusal("account", "create", "ana", "--password-file", "password", *NATS)

    assert "UTF-8 text" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stauts"], "Did you mean 'status'?"),
        (["nonsense"], "No such command 'nonsense'."),
        (["up", "--config", "x"], "--config comes before the command: flower-nats --config FILE"),
        (["up", "--replicas", "two"], "'two' is not a whole number from 1 to 32."),
        (["up", "--replicas", "40"], "'40' is not a whole number from 1 to 32."),
        (["up", "--log-retention", "-1"], "'-1' is not a whole number from 0 to 100000."),
        (
            ["local", "start", "--max-concurrent-simulations", "0"],
            "'0' is not a whole number from 1 to 10000.",
        ),
        (["gateway", "--drain-delay", "nan"], "'nan' is not a number from 0.0 to 5.0."),
        (["down", "--wait", "nan"], "'nan' is not a number of 0 or more."),
    ],
)
def test_a_slip_is_told_with_what_was_meant(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 2
    assert told in result.output


@pytest.mark.parametrize(
    "option",
    [
        ["--http-api-address", "a..b:8000"],
        ["--host", "a..b"],
        ["--http-health-address", f"{'a' * 64}:9000"],
        ["--trusted-balancers", "a..b"],
        ["--trusted-balancers", f"10.0.0.1,{'a' * 64}"],
        ["--control-by-balancer", "a..b:9093"],
    ],
)
def test_a_host_that_nobody_can_look_up(option: list[str]) -> None:
    line = refusal(*GATEWAY, *option)

    assert option[0] in line
    assert "from 1 to 63 characters" in line


@pytest.mark.parametrize("balancer", ["10.0.0.0/33", "10.0.0.1:8000", "balancer:8000"])
def test_what_is_no_balancer(balancer: str) -> None:
    assert "no network such as 10.0.5.0/24" in refusal(*GATEWAY, "--trusted-balancers", balancer)


def test_an_issuer_that_nobody_can_look_up() -> None:
    oidc = ("--oidc-issuer", "https://a..b/realms/x", "--oidc-client-id", "x")

    assert "from 1 to 63 characters" in refusal(*SUPERLINK, *oidc)


def test_a_directory_where_nothing_ever_ran_is_named(folder: Path) -> None:
    status = CliRunner().invoke(main, ["status", "--data-dir", "nowhere"])
    down = CliRunner().invoke(main, ["down", "--data-dir", "nowhere"])

    assert status.exit_code == down.exit_code == 1
    for result in (status, down):
        assert f"No runtime has been started in {folder / 'nowhere'}" in result.output
        assert "--data-dir" in result.output
    assert "--nats" in status.output
    assert not (folder / "nowhere").exists()


@pytest.mark.parametrize("part", ["logs", "nats", "postgres", "up.json"])
def test_a_part_of_the_directory_that_cannot_be_what_it_should_is_named(
    part: str, folder: Path
) -> None:
    (folder / "data").mkdir()
    (folder / "data" / part).mkdir() if part == "up.json" else (folder / "data" / part).touch()
    apis = ("http", "serverappio", "fleet", "control")
    anywhere = [f"--{api}-api-address=127.0.0.1:0" for api in apis]

    result = CliRunner().invoke(
        main, ["up", "--data-dir", "data", "--isolation", "process", *anywhere]
    )

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert f"Error: {folder / 'data' / part}" in result.output


def test_the_status_of_two_runtimes_at_once() -> None:
    line = refusal("status", *NATS, "--data-dir", "data")

    assert "--nats" in line
    assert "--data-dir" in line
    assert "leave one of them out" in line


def test_the_status_of_two_runtimes_of_which_a_variable_says_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWER_NATS_STATUS_NATS", NATS[1])

    assert "environment variable" in refusal("status", "--data-dir", "data")


def test_a_state_that_another_version_has_left_is_named(folder: Path) -> None:
    (folder / "up.lock").touch()
    private_file(folder / "up.json", '{"pid": 1}')

    result = CliRunner().invoke(main, ["status", "--data-dir", "."])

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "up.json" in result.output


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ([*GATEWAY, "--nats-file", "url"], "--nats and --nats-file set the same value"),
        ([*SUPERLINK, "--nats-file", "url"], "--nats and --nats-file set the same value"),
        (
            [*SUPERLINK, "--database-file", "url"],
            "--database and --database-file set the same value",
        ),
        (["gateway", "--insecure"], "Missing option '--nats', or '--nats-file'"),
        (["superlink", *NATS], "Missing option '--database', or '--database-file'"),
        (["gateway", "--insecure", "--nats-file", "none"], "'none' does not exist"),
        (["gateway", "--insecure", "--nats-file", "empty"], "empty: URL 1 of 1"),
        (["gateway", "--insecure", "--nats-file", "url"], "url: URL 2 of 2"),
        (["status", "--nats-file", "url"], "url: URL 2 of 2"),
        (["gateway", "--insecure", "--nats-file", "binary"], "binary is not text in UTF-8"),
        (["superlink", "--isolation", "process", *NATS, "--database-file", "url"], "url: It is"),
        (["status", "--nats-ca-certfile", "ca.crt"], "--nats-ca-certfile is for --nats"),
        ([*GATEWAY, "--nats-ca-certfile", "file"], "file contains no certificate"),
    ],
)
def test_urls_from_files_that_cannot_be_right(command: list[str], named: str, folder: Path) -> None:
    (folder / "url").write_text("nats://u:hush@a,http://u:hush@b")
    if command[0] == "superlink" and "process" not in command:
        command = [*command, "--isolation", "process"]

    line = refusal(*command)

    assert named in line
    assert "hush" not in line


def test_a_port_in_use_is_told_with_its_option_and_nothing_is_left_behind(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        flags = ["--disable-runtime-dependency-installation", "--port", port]

        result = CliRunner().invoke(main, ["up", "--data-dir", "data", *flags])

    assert result.exit_code == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in result.output
    assert f"(pid {os.getpid()})" in result.output
    assert "or choose another address with --port or --http-api-address." in result.output
    assert not (folder / "data").exists()
