"""Each option may come from an environment variable; the help text shows the variable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flower_nats_cli.environment import without_proxy_to
from flower_nats_cli.main import main
from harness.commands import commands

REQUIRED = {
    "gateway": {"nats": "nats://here:4222"},
    "superlink": {"nats": "nats://here:4222", "database": "postgresql://here/x"},
}
WORDS = {
    "ISSUER": "https://there.example",
    "CLIENT_ID": "us",
    "SCOPES": "openid",
    "AUDIENCE": "them",
    "CLAIM": "email",
    "GROUP": "admins",
    "https://HOST:PORT": "https://there:1",
    "HOST:PORT|none": "127.0.0.1:7777",
    "HOST:PORT": "127.0.0.1:7777",
    "HOST:PORT[,HOST:PORT...]": "10.0.0.1:7777",
    "ADDRESS[,ADDRESS...]": "10.0.0.0/8",
    "FILE[,FILE...]": "balancer.crt",
    "URL[,URL...]": "nats://there:4222",
    "URL": "postgresql://there/x",
    "NAME": "somebody",
    "NAME[,NAME...]": "AWS_*",
    "CALL": "StartRun",
    "OUTCOME": "done",
    "TEXT": "run 5",
}

VALUES: dict[type[Any], tuple[str, Any]] = {
    click.IntRange: ("3", 3),
    click.FloatRange: ("0.5", 0.5),
    click.DateTime: ("2026-01-02", datetime(2026, 1, 2)),
}

MANY = {"nats", "superexec_env", "trusted_balancers", "control_by_balancer", "balancer_certfile"}
"""Options with several values."""

ARGUMENTS = {
    "run": ["delete", "1"],
    "backup": ["backup"],
    "restore": ["."],
    "role": ["@ana/lab", "ana", "viewer"],
}
"""The arguments that a command needs besides options."""

WITHOUT_VARIABLE = ("host", "port")


def options() -> Iterator[tuple[str, click.Option]]:
    for name, command in commands().items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in WITHOUT_VARIABLE:
                yield name, parameter


def variable(command: str, option: click.Option) -> str:
    flag = max(option.opts, key=len).lstrip("-")
    return f"FLOWER_NATS_{command}_{flag}".replace("-", "_").upper()


def value_for(option: click.Option, folder: Path) -> tuple[str, Any]:
    """Return a value other than the default: as text, and in the form for the command."""
    kind = option.type
    if option.is_flag:
        return "true", True
    if isinstance(kind, click.Choice):
        last = kind.choices[-1]
        return last, last
    if type(kind) in VALUES:
        return VALUES[type(kind)]
    if isinstance(kind, click.Path):
        path = folder / "there"
        path.mkdir() if kind.dir_okay else path.touch()
        return str(path), path
    word = WORDS[str(option.metavar)]
    return word, (word,) if option.name in MANY else word


@pytest.mark.parametrize(
    ("command", "option"),
    [pytest.param(*pair, id=variable(*pair)) for pair in options()],
)
def test_an_option_comes_from_its_variable(
    command: str, option: click.Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: dict[str, Any] = {}
    monkeypatch.setattr(commands()[command], "callback", lambda **given: received.update(given))
    text, value = value_for(option, tmp_path)
    environment = {variable(command, option): text}
    needed = {name: one for name, one in REQUIRED.get(command, {}).items() if name != option.name}

    flags = [word for name, one in needed.items() for word in (f"--{name}", one)]
    words = [command, *flags, *ARGUMENTS.get(command, [])]
    result = CliRunner(env=environment).invoke(main, words)

    assert result.exit_code == 0, result.output
    assert received[str(option.name)] == value
    assert option.default != value


@pytest.mark.parametrize("command", commands())
def test_the_help_text_shows_the_variable_of_each_option(command: str) -> None:
    shown = CliRunner().invoke(main, [command, "--help"], terminal_width=120).output

    for name, option in options():
        if name == command:
            assert re.search(rf"env\s+var:\s+{variable(command, option)}[;\]]", shown)


def test_the_configuration_file_comes_from_its_variable(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[status]\ndata-dir = "there"')
    environment = {"FLOWER_NATS_CONFIG": str(tmp_path / "config.toml")}

    result = CliRunner(env=environment).invoke(main, ["status"])

    assert str(Path.cwd() / "there") in result.output
    assert "FLOWER_NATS_CONFIG" in CliRunner().invoke(main, ["--help"]).output


@pytest.mark.parametrize("name", ["VERSION", "HELP", "STATUS_HELP"])
def test_what_is_no_setting_has_no_variable(name: str) -> None:
    """Images often have their version in a variable of such a name."""
    result = CliRunner(env={f"FLOWER_NATS_{name}": "1.33.0"}).invoke(
        main, ["status", "--data-dir", "nowhere"]
    )

    assert "No runtime has been started" in result.output


def test_a_misspelt_variable_is_told_with_the_one_that_was_meant() -> None:
    environment = {"FLOWER_NATS_STATUS_DATADIR": "nowhere", "FLOWER_NATS_UP_DATA_DIR": "elsewhere"}

    result = CliRunner(env=environment).invoke(main, ["status"])

    assert "FLOWER_NATS_STATUS_DATADIR is not" in result.output
    assert "Did you mean FLOWER_NATS_STATUS_DATA_DIR?" in result.output
    assert "FLOWER_NATS_UP" not in result.output


def test_a_misspelt_variable_is_told_where_the_option_is_missed_then() -> None:
    environment = {"FLOWER_NATS_GATEWAY_NAT": "nats://here:4222"}

    result = CliRunner(env=environment).invoke(main, ["gateway", "--insecure"])

    assert "Did you mean FLOWER_NATS_GATEWAY_NATS?" in result.output
    assert "Missing option '--nats'" in result.output


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "SERVICE_PORT_FLEET", "PORT", "PORT_9092_TCP", "PORT_9092_TCP_ADDR"]
)
def test_what_kubernetes_says_of_a_service_is_not_taken_for_an_option(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: dict[str, Any] = {}
    monkeypatch.setattr(commands()["gateway"], "callback", lambda **given: received.update(given))

    result = CliRunner(env={f"FLOWER_NATS_GATEWAY_{name}": "tcp://10.0.0.1:9092"}).invoke(
        main, ["gateway", "--nats", "nats://here:4222"]
    )

    assert result.exit_code == 0, result.output
    assert "Warning" not in result.output
    assert received["port"] is received["host"] is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "localhost,127.0.0.1,::1,gateway.example"),
        (
            {"no_proxy": ".corp, 10.0.0.0/8"},
            ".corp,10.0.0.0/8,localhost,127.0.0.1,::1,gateway.example",
        ),
        ({"NO_PROXY": "localhost"}, "localhost,127.0.0.1,::1,gateway.example"),
    ],
)
def test_our_own_servers_are_called_without_a_proxy(
    variables: dict[str, str], expected: str
) -> None:
    assert without_proxy_to("gateway.example", variables) == {
        "no_proxy": expected,
        "NO_PROXY": expected,
    }


def test_what_grpc_alone_goes_by_is_kept_and_added_to() -> None:
    found = without_proxy_to("127.0.0.1", {"no_grpc_proxy": "mine"})

    assert found["no_grpc_proxy"].startswith("mine,localhost,127.0.0.1")
