"""Each version of Flower gets the flags and the address that it needs, and a text names them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.cli.flower_superexec import _parse_args as superexec_parser
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode as supernode_parser

from flower_nats.embedded.ports import free_ports
from flower_nats.model.exposure import exposure, warnings
from flower_nats.settings import GatewaySettings, SuperexecSettings, TlsFiles
from flower_nats_cli import flower
from flower_nats_cli.addresses import reachable
from flower_nats_cli.datadir import DataDir, RunningState
from flower_nats_cli.exposure import for_others
from flower_nats_cli.flower import superexec_flags, supernode_flags
from flower_nats_cli.flower_version import NEWEST, OLDEST, FlowerVersion, FlowerVersionError
from flower_nats_cli.ready_text import ready_text
from flower_nats_cli.runtime_access import (
    check_serves,
    control_access,
    opened_here,
    runtime_access,
)
from flower_nats_cli.stack import StackSettings
from harness.flower_environments import VERSIONS

GATEWAY = GatewaySettings(nats=(), http_api_address="127.0.0.1:8000")
SUPEREXEC = SuperexecSettings("127.0.0.1:8000")


def certificate_for(folder: Path, *names: str) -> TlsFiles:
    """Write a self-signed certificate for names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    subjects: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in names
    ]
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
    )
    if subjects:
        builder = builder.add_extension(x509.SubjectAlternativeName(subjects), critical=False)
    made = builder.sign(key, hashes.SHA256())
    (folder / "server.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    # These tests use only the names in the certificate, not the key.
    return TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.crt")


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> Path:
    """Put a SuperExec that prints `told` on PATH, and none beside this Python."""
    program = folder / "flower-superexec"
    program.write_text(f"#!/bin/sh\necho '{told}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "elsewhere" / "python"))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return program


def test_the_version_beside_us_is_that_of_the_package() -> None:
    assert flower.superexec_version() == FlowerVersion.parse(version("flwr"))


def test_a_program_of_another_environment_is_asked_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch, "Flower version: 1.36.0")

    assert flower.superexec_version() == FlowerVersion(1, 36)


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ("Flower version: 1.29.0", "the oldest supported version is 1.30"),
        ("hello", "does not print the version"),
        ("Flower version: new", "'new' is not a version"),
    ],
)
def test_a_superexec_that_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, named: str
) -> None:
    installed(tmp_path, monkeypatch, told)

    with pytest.raises(FlowerVersionError, match=named):
        flower.superexec_version()


@pytest.mark.parametrize(
    ("minor", "flags"),
    [
        (30, ["--plugin-type", "serverapp", "--insecure", "--appio-api-address"]),
        (35, ["--plugin-type", "serverapp", "--insecure", "--appio-api-address"]),
        (36, ["--plugin-type", "serverapp", "--insecure", "--runtime-api-address"]),
        (37, ["--plugin-type", "serverapp", "--insecure", "--runtime-api-address"]),
        (38, ["--insecure", "--runtime-api-address"]),
        (42, ["--insecure", "--runtime-api-address"]),
    ],
)
def test_a_superexec_gets_the_flags_of_its_version(minor: int, flags: list[str]) -> None:
    settings = replace(SUPEREXEC, runtime_dependency_installation=False)

    given = superexec_flags(settings, FlowerVersion(1, minor))

    assert given == [*flags, "127.0.0.1:8000"]


@pytest.mark.parametrize(
    ("minor", "flags"),
    [
        (34, ["--clientappio-api-address", "127.0.0.1:9095"]),
        (35, ["--host", "127.0.0.1", "--port", "9095"]),
    ],
)
def test_a_supernode_gets_the_flags_of_its_version(minor: int, flags: list[str]) -> None:
    given = supernode_flags("here:9092", "127.0.0.1:9095", None, FlowerVersion(1, minor))

    assert given == ["--insecure", "--superlink", "here:9092", *flags]


def test_the_programs_that_are_installed_take_their_flags(tmp_path: Path) -> None:
    here, secret = FlowerVersion.parse(version("flwr")), tmp_path / "secret"
    settings = replace(SUPEREXEC, ca_certificate=tmp_path / "ca.crt", auth_secret_file=secret)

    superexec = superexec_parser().parse_args(superexec_flags(settings, here))
    supernode = supernode_parser().parse_args(
        supernode_flags("here:9092", "127.0.0.1:9095", tmp_path / "ca.crt", here)
    )

    assert superexec.root_certificates == supernode.root_certificates == str(tmp_path / "ca.crt")
    assert superexec.superexec_auth_secret_file == str(secret)
    assert supernode.superlink == "here:9092"


@pytest.mark.parametrize(("minor", "address"), [(34, "127.0.0.1:9091"), (35, "127.0.0.1:8000")])
def test_a_superexec_connects_to_the_port_of_its_wire(minor: int, address: str) -> None:
    assert runtime_access(opened_here(GATEWAY), FlowerVersion(1, minor)) == (address, None)


@pytest.mark.parametrize(
    ("names", "address"),
    [
        (["127.0.0.1", "localhost"], "127.0.0.1:8000"),
        (["runtime.example.org", "localhost"], "localhost:8000"),
    ],
)
def test_with_tls_a_superexec_uses_a_name_of_this_machine_in_the_certificate(
    tmp_path: Path, names: list[str], address: str
) -> None:
    tls = certificate_for(tmp_path, *names)
    gateway = replace(GATEWAY, http_api_address="0.0.0.0:8000", tls=tls)

    opened = opened_here(gateway)

    assert runtime_access(opened, FlowerVersion(1, 42)) == (address, tls.ca_certificate)
    assert opened == gateway


@pytest.mark.parametrize("names", [["runtime.example.org"], []])
def test_with_a_certificate_for_other_names_this_machine_gets_a_port_of_the_loopback_interface(
    tmp_path: Path, names: list[str]
) -> None:
    [http] = free_ports(1)
    tls = certificate_for(tmp_path, *names)
    gateway = replace(GATEWAY, http_api_address=f"0.0.0.0:{http}", tls=tls)

    opened = opened_here(gateway)

    beside = f"127.0.0.1:{http + 1}"
    assert opened.http_loopback_address == beside
    assert runtime_access(opened, FlowerVersion(1, 42)) == (beside, None)
    assert control_access(opened) == (beside, None)


def test_where_the_http_port_is_for_others_alone_this_machine_gets_one_of_its_own() -> None:
    [http, fleet] = free_ports(2)
    gateway = replace(
        GATEWAY, http_api_address=f"10.0.0.1:{http}", fleet_api_address=f"127.0.0.1:{fleet}"
    )

    assert opened_here(gateway).http_loopback_address == f"127.0.0.1:{http + 1}"
    taken = replace(gateway, fleet_api_address=f"127.0.0.1:{http + 1}")
    assert opened_here(taken).http_loopback_address == "127.0.0.1:0"


@pytest.mark.parametrize(
    ("minor", "off", "option"),
    [
        (42, {"http_api_address": ""}, "--http-api-address"),
        (33, {"serverappio_api_address": ""}, "--serverappio-api-address"),
    ],
)
def test_a_superexec_whose_wire_is_off_is_refused(
    minor: int, off: dict[str, str], option: str
) -> None:
    with pytest.raises(click.UsageError, match=option) as refused:
        check_serves(replace(GATEWAY, **off), FlowerVersion(1, minor))  # type: ignore[arg-type]

    assert "--isolation process" in refused.value.message


@pytest.fixture(autouse=True)
def nobody_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the output of `up` the same for all users."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def told(
    minor: int, tls: TlsFiles | None = None, accounts: bool = False, **off: Any
) -> Sequence[str]:
    """Return the lines that `up` prints with flwr 1.<minor>."""
    addresses: dict[str, Any] = {
        "http_api_address": "127.0.0.1:8000",
        "serverappio_api_address": "127.0.0.1:9091",
        "fleet_api_address": "127.0.0.1:9092",
        "control_api_address": "127.0.0.1:9093",
        **off,
    }
    gateway = opened_here(replace(GATEWAY, tls=tls, **addresses))
    served = for_others(gateway, {})
    here: dict[str, Any] = {name: one and reachable(one) for name, one in addresses.items()}
    warned = list(warnings(exposure(gateway), accounts=False))
    state = RunningState(
        1, "now", [], http_health_addresses={}, for_others=served, warnings=warned, **here
    )
    settings = StackSettings(
        DataDir(Path("data")),
        gateway,
        SUPEREXEC,
        flower=FlowerVersion(1, minor),
        accounts=accounts,
    )
    return ready_text(state, settings).splitlines()


def test_up_with_accounts_says_how_to_make_one_before_a_supernode_is_refused(
    tmp_path: Path,
) -> None:
    data, tls = Path("data").resolve(), certificate_for(tmp_path, "127.0.0.1")
    make = (
        f"Create an account:    flower-nats account create NAME --role operator --data-dir {data}"
    )

    lines = told(42, tls, accounts=True)

    at = lines.index(make)
    assert lines[at + 1 : at + 3] == [
        "Log in:               flwr login flower-nats",
        "Register a SuperNode: flwr supernode register KEY.pub flower-nats",
    ]
    assert lines[at + 3].startswith("Connect a SuperNode:")
    assert make not in told(42, tls)
    assert any("flwr login needs TLS" in one for one in told(42, accounts=True))


def test_up_says_first_what_the_installed_version_needs_and_then_what_others_need() -> None:
    data = Path("data").resolve()

    assert told(42) == [
        "flower-nats is ready: HTTP 127.0.0.1:8000, ServerAppIo 127.0.0.1:9091, Fleet 127.0.0.1:9092, "
        "Control 127.0.0.1:9093",
        "",
        "Put these three lines into your Flower config (~/.flwr/config.toml):",
        "",
        "[superlink.flower-nats]",
        'address = "127.0.0.1:8000"',
        "insecure = true",
        "",
        "Connect a SuperNode:  flower-supernode --insecure --superlink 127.0.0.1:8000",
        f"Configure flwr:       flower-nats connect --data-dir {data}    (writes the lines above)",
        "Run an app:           flwr run <app> flower-nats --stream",
        f"Show the state:       flower-nats status --data-dir {data}",
        f"Stop:                 Ctrl-C, or flower-nats down --data-dir {data}",
        f"Logs:                 {data / 'logs'}",
        "Other machines reach: nothing",
        "",
        "Addresses for other versions of flwr:",
        '  flwr 1.30 to 1.36              address = "127.0.0.1:9093"',
        "  flower-supernode 1.30 to 1.39  --superlink 127.0.0.1:9092",
    ]


@pytest.mark.parametrize(
    ("minor", "control", "fleet", "others"),
    [
        (33, "9093", "9092", ["  flwr 1.37 and newer", "  flower-supernode 1.40 and newer"]),
        (36, "9093", "9092", ["  flwr 1.37 and newer", "  flower-supernode 1.40 and newer"]),
        (37, "8000", "9092", ["  flwr 1.30 to 1.36", "  flower-supernode 1.40 and newer"]),
        (39, "8000", "9092", ["  flwr 1.30 to 1.36", "  flower-supernode 1.40 and newer"]),
        (40, "8000", "8000", ["  flwr 1.30 to 1.36", "  flower-supernode 1.30 to 1.39"]),
    ],
)
def test_the_flwr_command_and_supernodes_changed_their_wire_in_different_versions(
    minor: int, control: str, fleet: str, others: list[str]
) -> None:
    lines = told(minor)

    assert f'address = "127.0.0.1:{control}"' in lines
    assert (
        f"Connect a SuperNode:  flower-supernode --insecure --superlink 127.0.0.1:{fleet}" in lines
    )
    for line, other in zip(lines[-2:], others, strict=True):
        assert line.startswith(f"{other}  ")


def test_where_the_wire_of_the_installed_version_is_off_it_is_said_for_which_the_rest_is() -> None:
    lines = told(33, control_api_address="", fleet_api_address="")

    assert lines[2].endswith("(~/.flwr/config.toml) of flwr 1.37 and newer:")
    assert 'address = "127.0.0.1:8000"' in lines
    assert any(line.endswith(":8000    (flwr 1.40 and newer)") for line in lines)
    assert "Other versions" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("names", "host"),
    [
        (["runtime.example.org", "127.0.0.1"], "127.0.0.1"),
        (["*.example.org", "runtime.example.org"], "runtime.example.org"),
        (["*.example.org"], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
def test_with_tls_up_says_a_host_that_the_certificate_is_good_for(
    tmp_path: Path, names: list[str], host: str
) -> None:
    tls = certificate_for(tmp_path, *names)
    ports: dict[str, Any] = {
        f"{api}_api_address": f"0.0.0.0:{port}" for api, port in (("http", 8000), ("fleet", 9092))
    }

    lines = told(42, tls, **ports)

    if "127.0.0.1" in names:
        assert lines[5:7] == [
            'address = "127.0.0.1:8000"',
            f"root-certificates = '{tls.ca_certificate}'",
        ]
    else:
        # Control listens on the loopback interface, where no client could verify the certificate.
        assert lines[5].startswith('address = "127.0.0.1:')
        assert lines[6] == "insecure = true"
        assert "flwr 1.30 to 1.36" not in "\n".join(lines)
    assert lines[8].endswith(f" --superlink {host}:8000")
    assert lines[-1].endswith(f" --superlink {host}:9092")
    assert "Other machines reach: 0.0.0.0:8000 (Fleet), 0.0.0.0:9092 (Fleet)" in lines


def test_up_says_that_apps_run_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)

    assert any("root" in line and "--superexec-user" in line for line in told(42))


def test_up_says_when_other_machines_reach_control() -> None:
    lines = told(42, control_api_address="0.0.0.0:9093")

    at = lines.index("Other machines reach: 0.0.0.0:9093 (Control)")
    assert "at an address of this machine, most likely " in lines[at + 1]
    assert "WARNING: Anyone who reaches Control (0.0.0.0:9093) can run any Python" in words(
        lines[at + 2]
    )
    assert "Traffic is not encrypted (0.0.0.0:9093)" in words("\n".join(lines))


def words(text: str) -> str:
    return " ".join(text.split())


def test_up_warns_of_traffic_in_the_clear_and_of_supernodes_that_anybody_may_add() -> None:
    open_to_others = words("\n".join(told(42, http_api_address="0.0.0.0:8000")))

    assert "Traffic is not encrypted (0.0.0.0:8000)" in open_to_others
    assert "Anybody may add a SuperNode (0.0.0.0:8000)" in open_to_others
    assert "WARNING" not in "\n".join(told(42))


def test_a_version_that_is_newer_than_all_that_were_tried_is_told() -> None:
    assert told(43)[-1] == "flwr 1.43 was not tested: 1.42 is the newest version that was."
    assert "was not tested" not in "\n".join(told(42))


def test_the_versions_that_were_tried_are_those_that_users_are_told_of() -> None:
    tried = [FlowerVersion.parse(one) for one in VERSIONS]

    assert (tried[0], tried[-1]) == (OLDEST, NEWEST)
    # `make demo` and the clients of the tests use the installed flwr.
    assert version("flwr") == VERSIONS[-1]
