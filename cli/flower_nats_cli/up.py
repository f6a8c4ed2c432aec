"""`flower-nats up`: everything on one machine, until Ctrl-C, SIGTERM or `down`."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from flower_nats.logs import get_logger
from flower_nats.model.exposure import exposure, open_control
from flower_nats.settings import GatewaySettings, Isolation, LogSettings
from flower_nats.stopping import until
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.addresses import (
    EVERYWHERE,
    LOOPBACK,
    accepts_connections,
    address_argument,
    addresses_from,
    loopback_argument,
)
from flower_nats_cli.datadir import DataDir
from flower_nats_cli.flower import check_superexec_user, flwr_version, superexec_version
from flower_nats_cli.ready_text import ready_text
from flower_nats_cli.runtime_access import check_serves, opened_here, runtime_access
from flower_nats_cli.simulation import check_simulations_can_run
from flower_nats_cli.stack import Stack, StackSettings, names

log = get_logger(__name__)

_CONSOLE = f"{LOOPBACK}:9090"


def console_argument(value: str) -> str:
    """Take a `host:port` of this machine alone, or `none`, from the command line."""
    return "" if value == "none" else loopback_argument(value)


@click.command()
@opts.data_dir_option
@click.option(
    "--replicas",
    type=click.IntRange(min=1, max=32),
    default=1,
    show_default=True,
    help=(
        "Superlinks and gateways to start. With 2 or more, a balancer serves the ports. With 3 "
        "or more, NATS is a cluster of three servers and survives the loss of one."
    ),
)
@opts.isolation_option
@opts.api_address_options
@opts.tls_options
@opts.accounts_option
@opts.oidc_options
@opts.require_accounts_option
@opts.self_registration_option
@opts.login_url_option
@opts.simulation_option
@opts.max_simulations_option
@opts.supernode_auth_option
@opts.record_metrics_option
@opts.superexec_secret_option
@opts.superexec_app_options
@opts.dependency_options
@opts.log_retention_option
@opts.run_retention_option
@opts.max_artifact_option
@opts.audit_retention_option
@opts.node_retention_option
@opts.storage_limit_options
@opts.health_option
@click.option(
    "--http-health-address",
    type=address_argument,
    metavar="HOST:PORT",
    help="First address of HTTP servers that answer GET /livez, /readyz and /metrics, one for each "
    "superlink and then one for each gateway, on PORT, PORT+1, and so on. Default: none.",
)
@click.option(
    "--console-address",
    type=console_argument,
    metavar="HOST:PORT|none",
    help=(
        "Loopback address for the web pages of the console. Default: 127.0.0.1:9090, or another "
        "port if that one is in use."
    ),
)
@opts.log_options
def up(**options: Any) -> None:
    """Run everything on this machine: NATS, PostgreSQL, superlink, gateway and SuperExec.

    Without certificates it serves only this machine; --insecure serves other machines without
    encryption. Other machines reach only the API of SuperNodes, unless --control-api-address or
    --http-control opens Control. Ctrl-C or SIGTERM ends everything. The next `up` on the directory
    has every run again.
    """
    settings = stack_settings(options)
    if settings.simulation and settings.superexec is not None:
        installs = settings.superexec.runtime_dependency_installation
        check_simulations_can_run(installs=installs)
    with settings.data.owned():
        read.start_logs(read.log_settings(options))
        asyncio.run(_run(settings))


def stack_settings(options: read.Options) -> StackSettings:
    """Turn the command's options into settings; raises UsageError."""
    gateway, health = _gateway_settings(options), _http_health_addresses(options)
    read.check_gateway_addresses(
        gateway, **{f"--http-health-address ({name})": one for name, one in health.items()}
    )
    exposed = exposure(gateway)
    if options["require_accounts"] and exposed["control"] and not _has_accounts(options):
        raise click.UsageError(open_control(exposed))
    secret_file: Path | None = options["superexec_auth_secret_file"]
    settings = StackSettings(
        data=DataDir(options["data_dir"]),
        gateway=gateway,
        superexec=None,
        superexec_auth_secret_file=secret_file,
        replicas=options["replicas"],
        accounts=_has_accounts(options),
        oidc=read.oidc_settings(options),
        supernode_self_registration=options["supernode_self_registration"],
        simulation=options["simulation"],
        log_retention=options["log_retention"],
        run_retention=options["run_retention"],
        max_artifacts=options["max_artifact_mib"],
        audit_retention=options["audit_retention"],
        node_retention=options["node_retention"],
        http_health_addresses=health,
        console_address=_console_address(options),
    )
    if options["isolation"] == Isolation.PROCESS:
        return replace(settings, flower=flwr_version())
    return _with_superexec(settings, options)


def _has_accounts(options: read.Options) -> bool:
    return bool(options["accounts"]) or options["oidc_issuer"] is not None


def _with_superexec(settings: StackSettings, options: read.Options) -> StackSettings:
    version = superexec_version()
    check_serves(settings.gateway, version)
    superexec = read.superexec_settings(options, *runtime_access(settings.gateway, version))
    check_superexec_user(superexec)
    return replace(settings, superexec=superexec, flower=version)


def _gateway_settings(options: read.Options) -> GatewaySettings:
    tls, appio_tls = (
        read.tls_files(options),
        read.tls_files(options, "appio_"),
    )
    insecure: bool = options["insecure"]
    host = EVERYWHERE if tls or insecure else LOOPBACK
    secret = read.superexec_secret_file(options)
    elsewhere = options["isolation"] == Isolation.PROCESS
    gateway = GatewaySettings(
        nats=(),
        http_api_address=read.http_api_address(options, host),
        control_to_others=options["http_control"],
        runtime_to_others=options["insecure_appio"] or bool(secret and tls),
        serverappio_api_address=read.serverappio_api_address(
            options, EVERYWHERE if elsewhere else LOOPBACK, protected=bool(secret and appio_tls)
        ),
        fleet_api_address=read.api_address(options, "fleet", host, 9092),
        control_api_address=read.api_address(options, "control", LOOPBACK, 9093),
        require_accounts=_has_accounts(options),
        login_url=options["login_url"] or "",
        tls=tls,
        appio_tls=appio_tls,
        superexec_auth_secret_file=secret,
        enable_supernode_auth=read.check_supernode_auth(options, encrypted=tls is not None),
        record_metrics=options["record_metrics"],
        storage_limits=read.storage_limits(options),
        health_server_address=options["health_server_address"],
        log=LogSettings(level=options["log_level"]),
    )
    return opened_here(gateway)


def _console_address(options: read.Options) -> str:
    given: str | None = options["console_address"]
    if given is not None:
        return given
    # Prometheus uses the same port, and the user has not chosen this one.
    return f"{LOOPBACK}:0" if accepts_connections(_CONSOLE) else _CONSOLE


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
