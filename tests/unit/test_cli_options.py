"""Options of the command line become settings: flag, then environment, then file, then default."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from flower_nats.model.exposure import exposure
from flower_nats.settings import GatewaySettings, SuperlinkSettings
from flower_nats_cli import app_dependencies, flower
from flower_nats_cli.addresses import claim_addresses, reachable, split_address
from flower_nats_cli.gateway import gateway_settings
from flower_nats_cli.main import main
from flower_nats_cli.placement import edges, gateway_flags
from flower_nats_cli.stack import StackSettings
from flower_nats_cli.superlink import superlink_settings
from flower_nats_cli.up import stack_settings
from harness.certificates import create_server_certificates
from harness.commands import commands

_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "gateway": gateway_settings,
    "superlink": superlink_settings,
    "up": stack_settings,
}


@dataclass
class Cli:
    """Runs a command until its settings are known."""

    settings: list[Any] = field(default_factory=list)

    def run(self, *arguments: str, **environment: str) -> Result:
        return CliRunner(env=environment).invoke(main, arguments)

    def gateway(self, *arguments: str, **environment: str) -> GatewaySettings:
        return self._settings("gateway", arguments, environment)  # type: ignore[no-any-return]

    def superlink(self, *arguments: str, **environment: str) -> SuperlinkSettings:
        return self._settings("superlink", arguments, environment)  # type: ignore[no-any-return]

    def up(self, *arguments: str, **environment: str) -> StackSettings:
        return self._settings("up", arguments, environment)  # type: ignore[no-any-return]

    def _settings(
        self, command: str, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> Any:
        result = self.run(*_before(arguments), command, *_after(arguments), **environment)
        assert result.exit_code == 0, result.output
        return self.settings.pop()


def _before(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return arguments[:2] if arguments[:1] == ("--config",) else ()


def _after(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return arguments[len(_before(arguments)) :]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, with commands that only build their settings."""
    seen = Cli()
    # No test uses a package registry.
    monkeypatch.setattr(app_dependencies, "can_install", lambda: True)
    for name, build in _BUILDERS.items():
        monkeypatch.setattr(commands()[name], "callback", _stopping(build, seen))
    return seen


def _stopping(build: Callable[[Any], Any], seen: Cli) -> Callable[..., None]:
    def callback(**options: Any) -> None:
        seen.settings.append(build(options))

    return callback


@pytest.fixture
def certificates(tmp_path: Path) -> list[str]:
    files = create_server_certificates(tmp_path)
    return [
        *("--ssl-certfile", str(files.certificate)),
        *("--ssl-keyfile", str(files.key)),
        *("--ssl-ca-certfile", str(files.ca_certificate)),
    ]


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "flower-nats.toml"
    file.write_text('[gateway]\nnats = "nats://file"\ninsecure = true\nlog-level = "debug"')
    environment = {"FLOWER_NATS_GATEWAY_NATS": "nats://environment"}

    from_file = cli.gateway("--config", str(file))
    from_environment = cli.gateway("--config", str(file), **environment)
    from_flag = cli.gateway("--config", str(file), "--nats", "nats://flag", **environment)

    assert from_file.nats == ("nats://file",)
    assert from_file.log.level == "debug"
    assert from_environment.nats == ("nats://environment",)
    assert from_flag.nats == ("nats://flag",)


def test_who_requires_accounts_does_not_open_control_without_them(cli: Cli) -> None:
    words = ("--insecure", "--require-accounts")
    refused = cli.run("up", *words, "--http-control")

    assert refused.exit_code == 2
    assert "--accounts" in refused.output
    assert cli.up(*words, "--http-control", "--accounts").accounts
    assert not cli.up(*words).accounts


def test_how_long_runs_are_kept_and_how_much_of_one_is_given_can_be_said(cli: Cli) -> None:
    superlink = ("--nats", "nats://a", "--database", "postgresql://b/c")

    assert cli.superlink(*superlink).run_retention == cli.up("--insecure").run_retention == 0
    assert cli.superlink(*superlink, "--run-retention", "365").run_retention == 365
    assert cli.up("--insecure", "--run-retention", "365").run_retention == 365
    assert cli.superlink(*superlink).max_artifacts == 256
    assert cli.up("--insecure", "--max-artifact-mib", "0").max_artifacts == 0


def test_how_long_logs_are_kept_can_be_said_in_days(cli: Cli) -> None:
    superlink = ("--nats", "nats://a", "--database", "postgresql://b/c")

    assert cli.superlink(*superlink).log_retention == 90
    assert cli.superlink(*superlink, FLOWER_NATS_SUPERLINK_LOG_RETENTION="7").log_retention == 7
    assert cli.superlink(*superlink, "--log-retention", "0").log_retention == 0
    assert cli.up("--insecure").log_retention == 90
    assert cli.up("--insecure", "--log-retention", "1").log_retention == 1
    assert cli.run("up", "--log-retention", "-1").exit_code == 2


def test_urls_with_passwords_can_be_read_from_files(cli: Cli, tmp_path: Path) -> None:
    nats, database = tmp_path / "nats", tmp_path / "database"
    nats.write_text("nats://u:hush@a:4222,nats://u:hush@b:4222\n")
    database.write_text("postgresql://u:hush@c/d\n")
    environment = {
        "FLOWER_NATS_SUPERLINK_NATS_FILE": str(nats),
        "FLOWER_NATS_SUPERLINK_DATABASE_FILE": str(database),
    }
    file = tmp_path / "flower-nats.toml"
    file.write_text(f'[gateway]\nnats-file = "{nats}"')
    urls = ("nats://u:hush@a:4222", "nats://u:hush@b:4222")

    superlink = cli.superlink(**environment)

    assert superlink.nats == urls
    assert superlink.database == "postgresql://u:hush@c/d"
    assert cli.gateway("--insecure", "--nats-file", str(nats)).nats == urls
    assert cli.gateway("--config", str(file), "--insecure").nats == urls


def test_an_authority_for_nats_goes_with_urls_for_tls(cli: Cli, certificates: list[str]) -> None:
    flags = ["--insecure", "--nats-ca-certfile", certificates[-1]]

    settings = cli.gateway("--nats", "tls://a,tls://b", *flags)
    refused = cli.run("gateway", "--nats", "tls://a,nats://b", *flags)

    assert settings.nats_ca_certificate == Path(certificates[-1])
    assert refused.exit_code == 2
    assert "tls:// instead of nats://" in refused.output


def test_several_nats_servers_are_separated_by_commas(cli: Cli) -> None:
    settings = cli.gateway("--insecure", "--nats", "nats://a:4222, nats://b:4222")

    assert settings.nats == ("nats://a:4222", "nats://b:4222")


def test_a_gateway_listens_on_the_ports_of_stock_flower(cli: Cli) -> None:
    settings = cli.gateway("--insecure", "--nats", "nats://a")

    assert settings.http_api_address == "0.0.0.0:8000"
    assert settings.serverappio_api_address == "127.0.0.1:9091"
    assert settings.fleet_api_address == "0.0.0.0:9092"
    assert settings.control_api_address == "127.0.0.1:9093"


@pytest.fixture
def secret(tmp_path: Path) -> list[str]:
    (tmp_path / "superexec.secret").write_text("hush")
    return ["--superexec-auth-secret-file", str(tmp_path / "superexec.secret")]


def test_control_is_for_the_gateways_machine_until_somebody_asks_for_more(
    cli: Cli, certificates: list[str]
) -> None:
    gateway = ("--nats", "nats://a", *certificates)

    assert not cli.gateway(*gateway).control_to_others
    assert cli.gateway(*gateway, "--http-control").control_to_others
    assert not cli.up(*certificates).gateway.control_to_others
    assert cli.up(*certificates, "--http-control").gateway.control_to_others
    address = ["--control-api-address", "10.0.0.1:9093"]
    assert cli.up(*certificates, *address).gateway.control_api_address == "10.0.0.1:9093"
    assert not cli.up(*certificates, *address).gateway.control_to_others


@pytest.mark.parametrize(
    ("flags", "reached"),
    [
        ([], []),
        (["--http-control"], ["0.0.0.0:8000"]),
        (["--control-api-address", "10.0.0.1:9093"], ["10.0.0.1:9093"]),
    ],
)
def test_gateways_behind_the_balancer_know_who_reaches_control(
    cli: Cli, certificates: list[str], flags: list[str], reached: list[str]
) -> None:
    """The gateways' own addresses do not tell it: only the balancer uses them."""
    public = cli.up(*certificates, "--replicas", "3", *flags).gateway
    for placed in edges(public, 3).gateways:
        options = gateway_flags(placed, balanced=True)

        gateway = cli.gateway("--nats", "nats://a", *options)

        assert exposure(gateway)["control"] == reached
        assert gateway.trusted_balancers == placed.trusted_balancers == ("127.0.0.1",)
        assert [str(one) for one in gateway.balancer_certificates] == certificates[1:2]


def test_superexecs_of_other_machines_need_a_secret_and_tls_unless_somebody_says_otherwise(
    cli: Cli, certificates: list[str], secret: list[str]
) -> None:
    nats = ("--nats", "nats://a")
    appio = [flag.replace("--ssl", "--appio-ssl") for flag in certificates]

    protected = cli.gateway(*nats, *certificates, *appio, *secret)
    behind = cli.gateway(*nats, "--tls-terminated", *secret)
    told = cli.gateway(*nats, "--insecure", "--insecure-appio")
    assert all(one.runtime_to_others for one in (protected, behind, told))
    assert all(one.serverappio_api_address == "0.0.0.0:9091" for one in (protected, behind, told))
    for flags in (["--insecure", *secret], [*certificates, *appio]):
        assert not cli.gateway(*nats, *flags).runtime_to_others
        assert cli.gateway(*nats, *flags).serverappio_api_address == "127.0.0.1:9091"
        refused = cli.run("gateway", *nats, *flags, "--serverappio-api-address", "10.0.0.1:9091")
        assert refused.exit_code == 2
        assert "--superexec-auth-secret-file" in refused.output
        assert "--insecure-appio" in refused.output


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        (["--http-api-address", "10.0.0.1:443"], "10.0.0.1:443"),
        (["--host", "10.0.0.1"], "10.0.0.1:8000"),
        (["--port", "443"], "0.0.0.0:443"),
        (["--host", "::1", "--port", "443"], "[::1]:443"),
        (["--host", "[::1]"], "[::1]:8000"),
    ],
)
def test_the_address_of_http_can_be_said_as_stock_says_it(
    cli: Cli, flags: list[str], address: str
) -> None:
    assert cli.gateway("--insecure", "--nats", "nats://a", *flags).http_api_address == address
    assert cli.up("--insecure", *flags).gateway.http_api_address == address


def test_each_address_can_be_turned_off(cli: Cli) -> None:
    for api in ("http", "serverappio", "fleet", "control"):
        flags = [f"--{api}-api-address", "none"]

        settings = cli.gateway("--insecure", "--nats", "nats://a", *flags)

        assert getattr(settings, f"{api}_api_address") == ""
    flags = ["--isolation", "process", "--http-api-address", "none"]
    assert cli.up(FLOWER_NATS_UP_FLEET_API_ADDRESS="none").gateway.fleet_api_address == ""
    assert cli.up(*flags).gateway.http_api_address == ""


def test_a_gateway_needs_certificates_or_to_be_told_that_none_are_wanted(cli: Cli) -> None:
    result = cli.run("gateway", "--nats", "nats://a")

    assert result.exit_code == 2
    assert "--insecure" in result.output


def test_incomplete_certificates_are_refused(cli: Cli, certificates: list[str]) -> None:
    result = cli.run("gateway", "--nats", "nats://a", *certificates[:4])

    assert result.exit_code == 2
    assert "--ssl-ca-certfile" in result.output


def test_insecure_means_no_tls_whatever_certificates_are_given(
    cli: Cli, certificates: list[str]
) -> None:
    assert cli.gateway("--nats", "nats://a", *certificates).tls is not None
    assert cli.gateway("--nats", "nats://a", "--insecure", *certificates).tls is None


def test_supernode_authentication_needs_tls(cli: Cli, certificates: list[str]) -> None:
    flags = ["--nats", "nats://a", "--enable-supernode-auth"]

    refused = cli.run("gateway", *flags, "--insecure")

    assert refused.exit_code == 2
    assert "needs TLS" in refused.output
    assert cli.gateway(*flags, *certificates).enable_supernode_auth is True


def test_an_empty_superexec_secret_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    flags = ["--superexec-auth-secret-file", str(tmp_path / "secret")]

    result = cli.run("gateway", "--nats", "nats://a", "--insecure", *flags)

    assert result.exit_code == 2
    assert "is empty" in result.output


def test_secrets_do_not_show_in_settings(cli: Cli) -> None:
    gateway = cli.gateway("--nats", "nats://u:hush@a", "--insecure")
    superlink = cli.superlink("--nats", "nats://u:hush@a", "--database", "postgresql://u:hush@b/")

    assert "hush" not in repr(gateway) + repr(superlink)


def test_a_superlink_runs_a_superexec_unless_the_operator_does(cli: Cli) -> None:
    flags = ["--nats", "nats://a", "--database", "postgresql://b"]

    beside = cli.superlink(*flags, "--runtime-api-address", "0.0.0.0:7091")
    alone = cli.superlink(*flags, "--isolation", "process")

    assert beside.superexec is not None
    assert beside.superexec.runtime_api_address == "127.0.0.1:7091"
    assert beside.superexec.runtime_dependency_installation is True
    assert alone.superexec is None


@pytest.mark.parametrize("flags", [["--insecure"], ["--isolation", "process"]])
def test_a_superexec_beside_a_superlink_leaves_the_machine_without_tls_only_if_told(
    cli: Cli, flags: list[str]
) -> None:
    elsewhere = ["--nats", "nats://a", "--database", "postgresql://b"]
    elsewhere += ["--runtime-api-address", "gateway.example.org:9091"]

    assert "--ssl-ca-certfile" in cli.run("superlink", *elsewhere).output
    assert cli.superlink(*elsewhere, *flags).nats == ("nats://a",)


def test_the_stock_variable_keeps_superexecs_from_installing(cli: Cli) -> None:
    flags = ["--nats", "nats://a", "--database", "postgresql://b"]

    settings = cli.superlink(*flags, FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1")

    assert settings.superexec is not None
    assert settings.superexec.runtime_dependency_installation is False


def test_superexecs_install_by_default_where_uv_reaches_an_index(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installs(*flags: str) -> bool:
        superexec = cli.up(*flags).superexec
        assert superexec is not None
        return superexec.runtime_dependency_installation

    allow, disable = (f"--{way}-runtime-dependency-installation" for way in ("allow", "disable"))

    assert installs() and not installs(disable)
    monkeypatch.setattr(app_dependencies, "can_install", lambda: False)
    assert "uv reaches no package index" in cli.run("up").stderr
    assert not installs() and installs(allow)
    assert "contradict each other" in cli.run("up", allow, disable).stderr


def test_uv_without_a_network_reaches_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")

    assert not app_dependencies.can_install.__wrapped__()


def test_up_serves_this_machine_alone_until_it_is_told_to_serve_others(
    cli: Cli, certificates: list[str]
) -> None:
    assert cli.up().gateway.http_api_address == "127.0.0.1:8000"
    assert cli.up().gateway.fleet_api_address == "127.0.0.1:9092"
    assert cli.up("--insecure").gateway.http_api_address == "0.0.0.0:8000"
    assert cli.up("--insecure").gateway.fleet_api_address == "0.0.0.0:9092"
    assert cli.up(*certificates).gateway.http_api_address == "0.0.0.0:8000"
    assert cli.up(*certificates).gateway.control_api_address == "127.0.0.1:9093"


def test_up_opens_the_runtime_api_only_for_superexecs_elsewhere(
    cli: Cli, certificates: list[str], secret: list[str]
) -> None:
    appio = [flag.replace("--ssl", "--appio-ssl") for flag in certificates]
    elsewhere = ("--isolation", "process", *secret)

    beside, over_tls = cli.up(*certificates, *appio), cli.up(*certificates, *appio, *elsewhere)
    in_clear = cli.up("--insecure", *elsewhere)
    told = cli.up("--insecure", "--insecure-appio", *elsewhere)

    addresses = [one.gateway.serverappio_api_address for one in (beside, over_tls, in_clear, told)]
    assert addresses == ["127.0.0.1:9091", "0.0.0.0:9091", "127.0.0.1:9091", "0.0.0.0:9091"]
    opened = [one.gateway.runtime_to_others for one in (beside, over_tls, in_clear, told)]
    assert opened == [False, True, False, True]
    assert over_tls.superexec is None
    assert cli.run("up", "--serverappio-api-address", "0.0.0.0:9091").exit_code == 2


@pytest.mark.parametrize("address", ["9092", "host:", ":9092", "host:port", "host:65536", "None"])
def test_what_is_not_an_address_is_refused(cli: Cli, address: str) -> None:
    result = cli.run("up", "--fleet-api-address", address)

    assert result.exit_code == 2
    assert "is not an address" in result.output


def test_addresses_may_be_ipv6() -> None:
    assert split_address("[::1]:9092") == ("::1", 9092)
    assert reachable("[::]:9092") == "[::1]:9092"


def test_port_zero_becomes_a_free_port_of_its_own() -> None:
    claimed = claim_addresses([("--port", "127.0.0.1:0"), ("", "127.0.0.1:0")])

    (host, port), (other_host, other_port) = map(split_address, claimed)
    assert host == other_host == "127.0.0.1"
    assert port > 0
    assert other_port not in (0, port)


def test_a_missing_flower_program_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(flower.FlowerMissingError, match=r"Remedy: `pip install '.\[demo\]'` in"):
        flower.find_program("flwr")


@pytest.mark.parametrize("command", ["superlink", "up"])
def test_who_does_not_want_flower_here_is_told_of_the_other_isolation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    more = {
        "superlink": ["--nats", "nats://127.0.0.1:1", "--database", "postgresql://127.0.0.1:1/x"],
        "up": ["--data-dir", str(tmp_path / "data")],
    }

    done = CliRunner().invoke(main, [command, *more[command], "--insecure"])

    assert done.exit_code == 1
    assert "flower-superexec is not installed" in done.stderr
    assert "--isolation process" in done.stderr


def test_the_demo_which_runs_flower_itself_asks_for_it_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    done = CliRunner().invoke(main, ["demo"])

    assert done.exit_code == 1
    assert "flwr is not installed. Remedy: `pip install '.[demo]'` in a checkout" in done.stderr
    assert "--isolation" not in done.stderr


def test_every_command_and_option_has_a_help_text() -> None:
    context = click.Context(main)
    for command in commands().values():
        assert command.help
        for parameter in command.get_params(context):
            if isinstance(parameter, click.Argument):
                continue
            assert isinstance(parameter, click.Option)
            assert parameter.help, f"{command.name} {parameter.name}"
