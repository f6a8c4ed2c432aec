"""What a user reads when `up` serves."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from flower_nats.model.addresses import address_of_this_machine, is_everywhere
from flower_nats.settings import GatewaySettings, SuperexecSettings
from flower_nats_cli.datadir import RunningState
from flower_nats_cli.exposure import in_words
from flower_nats_cli.flower import (
    SUPEREXEC,
    connection_config,
    runs_apps_as_root,
    superexec_flags,
    trust_flags,
)
from flower_nats_cli.flower_config import flower_config_name
from flower_nats_cli.flower_version import (
    CONTROL_OVER_HTTP,
    FLEET_OVER_HTTP,
    NEWEST,
    OLDEST,
    FlowerVersion,
)
from flower_nats_cli.runtime_access import (
    certified_address,
    control_access,
    http_access,
    runtime_access,
    serves_runtime,
)
from flower_nats_cli.stack import StackSettings

_NAMES = {"http": "HTTP", "serverappio": "ServerAppIo", "fleet": "Fleet", "control": "Control"}


_INDENT = 22
"""Where the second column begins."""


@dataclass(frozen=True)
class _Way:
    """An address that serves an API to clients of some versions."""

    address: str
    ca_certificate: Path | None
    """The CA certificate that clients trust there, None for no TLS."""
    first: FlowerVersion
    last: FlowerVersion | None

    @property
    def versions(self) -> str:
        """The versions that use this address."""
        return f"{self.first} to {self.last}" if self.last else f"{self.first} and newer"

    def is_for(self, version: FlowerVersion) -> bool:
        """Whether clients of this version need this address."""
        return version >= self.first and (self.last is None or version <= self.last)


def ready_text(state: RunningState, settings: StackSettings) -> str:
    """Return what is served and how to use it, first for the flwr that is installed here."""
    version = settings.flower or NEWEST
    control = _ways(*_control_here(settings.gateway), CONTROL_OVER_HTTP, version)
    fleet = _ways(*_fleet(state, settings.gateway), FLEET_OVER_HTTP, version)
    served = ", ".join(f"{_NAMES[name]} {one}" for name, one in _listens_on(settings.gateway))
    lines = [
        f"flower-nats is ready: {served}",
        *_config(control[:1], version),
        "",
        *_commands(state, settings, fleet[:1], version),
        *_exposure(state),
        *_apps(settings),
        *_others(control[1:], fleet[1:]),
    ]
    if version > NEWEST:
        lines += ["", f"flwr {version} was not tested: {NEWEST} is the newest version that was."]
    return "\n".join(lines)


_Access = tuple[str, Path | None]
"""An address, empty for none, and the CA certificate to trust there."""


def _control_here(gateway: GatewaySettings) -> tuple[_Access, _Access]:
    """Return where this machine reaches Control: on the HTTP port, and on its own."""
    return (
        http_access(gateway) if gateway.http_api_address else ("", None),
        control_access(gateway) if gateway.control_api_address else ("", None),
    )


def _fleet(state: RunningState, gateway: GatewaySettings) -> tuple[_Access, _Access]:
    """Return where SuperNodes reach Fleet: on the HTTP port, and on its own."""
    tls = gateway.tls
    http, fleet = (state.addresses.get(name, "") for name in ("http", "fleet"))
    trust = tls.ca_certificate if tls else None
    return (http and certified_address(http, tls), trust), (
        fleet and certified_address(fleet, tls),
        trust,
    )


def _ways(
    http: _Access, grpc: _Access, since: FlowerVersion, version: FlowerVersion
) -> Sequence[_Way]:
    """Return the addresses of an API, first the one that clients of a version need."""
    if http == grpc:
        return [_Way(*http, OLDEST, None)] if http[0] else []
    ways = [_Way(*http, since, None), _Way(*grpc, OLDEST, since.before)]
    return sorted((way for way in ways if way.address), key=lambda way: not way.is_for(version))


def _config(ways: Sequence[_Way], version: FlowerVersion) -> Iterator[str]:
    for way in ways:
        note = "" if way.is_for(version) else f" of flwr {way.versions}"
        yield f"\nPut these three lines into your Flower config ({flower_config_name()}){note}:\n"
        yield connection_config("flower-nats", way.address, way.ca_certificate)


def _listens_on(gateway: GatewaySettings) -> Iterator[tuple[str, str]]:
    for name in _NAMES:
        if address := getattr(gateway, f"{name}_api_address"):
            yield name, address


def _exposure(state: RunningState) -> Iterator[str]:
    """Say what other machines reach, and the most likely address."""
    yield f"Other machines reach: {in_words(state.for_others)}"
    if any(map(is_everywhere, state.for_others)):
        likely = address_of_this_machine()
        yield f"{'':{_INDENT}}at an address of this machine, most likely {likely}"
    for warning in state.warnings:
        yield from wrap(
            f"WARNING: {warning}", 100, subsequent_indent=" " * _INDENT, break_on_hyphens=False
        )


def _accounts(settings: StackSettings) -> Iterator[str]:
    """Say what people have to do first if there are accounts."""
    if not settings.accounts:
        return
    if settings.oidc is None:
        yield (
            "Create an account:    flower-nats account create NAME --role operator "
            f"{_data_dir(settings)}"
        )
    if settings.gateway.tls:
        yield "Log in:               flwr login flower-nats"
    else:
        yield (
            "Log in:               flower-nats account token create NAME TOKEN "
            f"{_data_dir(settings)}    (flwr login needs TLS)"
        )
    if not settings.supernode_self_registration:
        yield "Register a SuperNode: flwr supernode register KEY.pub flower-nats"


def _commands(
    state: RunningState, settings: StackSettings, fleet: Sequence[_Way], version: FlowerVersion
) -> Iterator[str]:
    data = settings.data
    yield from _accounts(settings)
    for way in fleet:
        trust = shlex.join(trust_flags(way.ca_certificate))
        note = "" if way.is_for(version) else f"    (flwr {way.versions})"
        yield f"Connect a SuperNode:  flower-supernode {trust} --superlink {way.address}{note}"
    if settings.superexec is None:
        for command in _superexecs(settings, version):
            yield f"Start a SuperExec:    {shlex.join(command)}"
    yield f"Configure flwr:       flower-nats connect {_data_dir(settings)}    (writes the lines above)"
    yield "Run an app:           flwr run <app> flower-nats --stream"
    yield f"Show the state:       flower-nats status {_data_dir(settings)}"
    if state.console_address:
        yield f"Open the console:     http://{state.console_address}"
    yield f"Stop:                 Ctrl-C, or flower-nats down {_data_dir(settings)}"
    yield f"Logs:                 {data.path / 'logs'}"
    for name, address in state.http_health_addresses.items():
        yield f"Health and metrics:   http://{address}/metrics ({name})"


def _data_dir(settings: StackSettings) -> str:
    return f"--data-dir {shlex.quote(str(settings.data.path))}"


def _apps(settings: StackSettings) -> Iterator[str]:
    """Name the user who runs apps, if that matters."""
    if settings.superexec is not None and runs_apps_as_root(settings.superexec):
        yield (
            "ServerApps run as:    root, which may do anything on this machine. Remedy: "
            "--superexec-user NAME"
        )


def _superexecs(settings: StackSettings, version: FlowerVersion) -> Iterator[Sequence[str]]:
    """Give the command that starts a SuperExec, if the user has to start one."""
    if not serves_runtime(settings.gateway, version):
        return
    address, ca_certificate = runtime_access(settings.gateway, version)
    superexec = SuperexecSettings(
        runtime_api_address=address,
        ca_certificate=ca_certificate,
        auth_secret_file=settings.superexec_auth_secret_file,
        runtime_dependency_installation=False,
    )
    yield [SUPEREXEC, *superexec_flags(superexec, version)]


def _others(control: Sequence[_Way], fleet: Sequence[_Way]) -> Iterator[str]:
    """Say what clients of other versions need."""
    rows = [
        *((f"flwr {way.versions}", f'address = "{way.address}"') for way in control),
        *((f"flower-supernode {way.versions}", f"--superlink {way.address}") for way in fleet),
    ]
    if rows:
        yield "\nAddresses for other versions of flwr:"
    width = max((len(client) for client, _ in rows), default=0)
    for client, needed in rows:
        yield f"  {client:{width}}  {needed}"
