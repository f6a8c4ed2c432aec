"""`flower-nats up`: everything on one machine, until it is told to end."""

from __future__ import annotations

import asyncio
import shlex
import signal
from pathlib import Path
from typing import Any

import click

from flower_nats.logs import get_logger
from flower_nats.settings import GatewaySettings, Isolation, LogSettings, SuperexecSettings
from flower_nats.stopping import until
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.addresses import (
    EVERYWHERE,
    LOOPBACK,
    address_argument,
    addresses_from,
    join_address,
    reachable,
)
from flower_nats_cli.datadir import DataDir, RunningState
from flower_nats_cli.flower import SUPEREXEC, connection_config, superexec_flags
from flower_nats_cli.stack import Stack, StackSettings, names

log = get_logger(__name__)


@click.command()
@opts.data_dir_option
@click.option(
    "--replicas",
    type=click.IntRange(min=1, max=32),
    default=1,
    show_default=True,
    help="Members and gateways to start. From 2 on a balancer serves the ports for the gateways; "
    "from 3 on NATS is a cluster of three servers, and survives one.",
)
@opts.isolation_option
@opts.api_address_options
@opts.tls_options
@opts.appio_ca_option
@opts.supernode_auth_option
@opts.superexec_secret_option
@opts.dependency_option
@opts.log_retention_option
@opts.health_option
@click.option(
    "--http-health-address",
    type=address_argument,
    metavar="HOST:PORT",
    help="First address of HTTP servers that answer GET /livez, /readyz and /metrics, one for each "
    "superlink and then one for each gateway, on PORT, PORT+1, and so on. Default: none.",
)
@opts.log_options
def up(**options: Any) -> None:
    """Run everything on this machine: NATS, PostgreSQL, superlink, gateway and SuperExec.

    Without certificates it serves this machine only; say --insecure to serve others unencrypted.
    Ctrl-C or SIGTERM ends all of it, and the next `up` on the directory has every run again.
    """
    settings = stack_settings(options)
    with settings.data.owned():
        read.start_logs(read.log_settings(options))
        asyncio.run(_run(settings))


def stack_settings(options: read.Options) -> StackSettings:
    """Turn the command's options into settings; raises UsageError."""
    gateway, health = _gateway_settings(options), _http_health_addresses(options)
    read.check_gateway_addresses(
        gateway, **{f"--http-health-address ({name})": one for name, one in health.items()}
    )
    appio_ca = gateway.appio_tls.ca_certificate if gateway.appio_tls else None
    address = reachable(gateway.serverappio_api_address)
    secret_file: Path | None = options["superexec_auth_secret_file"]
    return StackSettings(
        data=DataDir(options["data_dir"]),
        gateway=gateway,
        superexec=read.superexec_settings(options, address, appio_ca),
        superexec_auth_secret_file=secret_file,
        replicas=options["replicas"],
        log_retention=options["log_retention"],
        http_health_addresses=health,
    )


def _gateway_settings(options: read.Options) -> GatewaySettings:
    tls, appio_tls = (
        read.tls_files(options),
        read.tls_files(options, "appio_"),
    )
    insecure: bool = options["insecure"]
    host = EVERYWHERE if tls or insecure else LOOPBACK
    for_others = options["isolation"] == Isolation.PROCESS and (appio_tls or insecure)
    appio_host = EVERYWHERE if for_others else LOOPBACK
    return GatewaySettings(
        nats=(),
        serverappio_api_address=_address(options, "serverappio", appio_host, 9091),
        fleet_api_address=_address(options, "fleet", host, 9092),
        control_api_address=_address(options, "control", host, 9093),
        tls=tls,
        appio_tls=appio_tls,
        superexec_auth_secret=read.superexec_secret(options),
        enable_supernode_auth=read.check_supernode_auth(options, encrypted=tls is not None),
        health_server_address=options["health_server_address"],
        log=LogSettings(level=options["log_level"]),
    )


def _http_health_addresses(options: read.Options) -> dict[str, str]:
    first: str | None = options["http_health_address"]
    if first is None:
        return {}
    processes = [*names("superlink", options["replicas"]), *names("gateway", options["replicas"])]
    try:
        addresses = addresses_from(first, len(processes))
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--http-health-address") from exc
    return dict(zip(processes, addresses, strict=True))


def _address(options: read.Options, api: str, host: str, port: int) -> str:
    address: str | None = options[f"{api}_api_address"]
    return address or join_address(host, port)


async def _run(settings: StackSettings) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    stack = Stack(settings)
    try:
        state = await until(end, stack.start())
        if state is not None:
            click.echo(ready_text(state, stack.settings))
            await stack.supervisor.run(end)
        log.info("ending")
    finally:
        await stack.stop()
    log.info("ended")


def ready_text(state: RunningState, settings: StackSettings) -> str:
    """Return what a user reads when everything serves."""
    tls, data = settings.gateway.tls, settings.data
    ca_certificate = tls.ca_certificate if tls else None
    config = connection_config("flower-nats", state.control_api_address, ca_certificate)
    trust = f"--root-certificates {ca_certificate}" if ca_certificate else "--insecure"
    health = "".join(
        f"\nHealth and metrics:   http://{address}/metrics ({name})"
        for name, address in state.http_health_addresses.items()
    )
    return f"""\
flower-nats is ready: ServerAppIo {state.serverappio_api_address}, \
Fleet {state.fleet_api_address}, Control {state.control_api_address}

Put these three lines into your Flower config (~/.flwr/config.toml):

{config}

Connect a SuperNode:  flower-supernode {trust} --superlink {state.fleet_api_address}
{_superexec_line(state, settings)}Run an app:           flwr run <app> flower-nats --stream
See how it is:        flower-nats status --data-dir {data.path}
End it:               Ctrl-C, or flower-nats down --data-dir {data.path}
Logs:                 {data.path / "logs"}{health}"""


def _superexec_line(state: RunningState, settings: StackSettings) -> str:
    """Return how to start what runs ServerApps, where that is the user's part."""
    if settings.superexec is not None:
        return ""
    tls = settings.gateway.appio_tls
    superexec = SuperexecSettings(
        appio_api_address=state.serverappio_api_address,
        ca_certificate=tls.ca_certificate if tls else None,
        auth_secret_file=settings.superexec_auth_secret_file,
        runtime_dependency_installation=False,
    )
    return f"Start a SuperExec:    {shlex.join((SUPEREXEC, *superexec_flags(superexec)))}\n"
