"""`flower-nats superlink`: one worker of the runtime."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import uvloop

from flower_nats.logs import get_logger
from flower_nats.settings import (
    DEFAULT_DATABASE_CONNECTIONS,
    Isolation,
    SuperexecSettings,
    SuperlinkSettings,
)
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.addresses import (
    LOOPBACK,
    address_argument,
    is_loopback,
    join_address,
    reachable,
)
from flower_nats_cli.certificates import check_certificate
from flower_nats_cli.flower import check_superexec_user, runs_apps_as_root, superexec_version
from flower_nats_cli.flower_version import RUNTIME_OVER_HTTP
from flower_nats_cli.superexec_host import SuperexecService
from flower_nats_cli.supervisor import Supervisor

_SUPEREXEC_GRACE_SECONDS = 3.0

log = get_logger(__name__)


@click.command()
@opts.nats_options
@opts.database_options
@opts.isolation_option
@click.option(
    "--runtime-api-address",
    type=address_argument,
    metavar="HOST:PORT",
    help=(
        "Address of the gateway for the SuperExec of this superlink: over HTTP, or over gRPC "
        "for flwr 1.34 and older. Default: 127.0.0.1:8000, or 127.0.0.1:9091."
    ),
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Let its SuperExec connect without TLS, to a gateway on another machine as well.",
)
@click.option(
    "--ssl-ca-certfile",
    type=opts.FILE,
    help="CA certificate with which its SuperExec verifies the gateway.",
)
@opts.accounts_option
@opts.oidc_options
@opts.self_registration_option
@opts.simulation_option
@opts.max_simulations_option
@opts.supernode_auth_option
@opts.superexec_secret_option
@opts.superexec_app_options
@opts.dependency_options
@click.option(
    "--database-connections",
    type=click.IntRange(2, 100),
    metavar="NUMBER",
    default=DEFAULT_DATABASE_CONNECTIONS,
    show_default=True,
    help=(
        "Most connections to PostgreSQL. PostgreSQL's max_connections must allow those of all "
        "superlinks together, and a few more."
    ),
)
@opts.log_retention_option
@opts.run_retention_option
@opts.max_artifact_option
@opts.audit_retention_option
@opts.node_retention_option
@click.option(
    "--watch-disk",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help=(
        "A directory on the disk of NATS or PostgreSQL, if that disk is on this machine. "
        "Status, metrics and log then show how much room is left. Default: none."
    ),
)
@opts.health_option
@opts.http_health_options
@opts.log_options
def superlink(**options: Any) -> None:
    """Start one superlink: it serves calls that gateways forward, and needs NATS and PostgreSQL.

    Start as many as you like. In subprocess isolation it runs a flower-superexec beside it, which
    connects to the gateway at --runtime-api-address.
    """
    settings = superlink_settings(options)
    read.check_superlink_addresses(settings)
    read.start_logs(settings.log)
    uvloop.run(_run(settings))


def superlink_settings(options: read.Options) -> SuperlinkSettings:
    """Turn the command's options into settings; raises UsageError."""
    elsewhere = options["isolation"] == Isolation.PROCESS
    nats = read.nats_servers(options)
    return SuperlinkSettings(
        nats=nats,
        nats_ca_certificate=read.nats_ca_certificate(options, nats),
        database=read.database(options),
        superexec=None if elsewhere else _superexec_settings(options),
        enable_supernode_auth=options["enable_supernode_auth"],
        accounts=options["accounts"] or options["oidc_issuer"] is not None,
        oidc=read.oidc_settings(options),
        supernode_self_registration=options["supernode_self_registration"],
        simulation=options["simulation"],
        log_retention=options["log_retention"],
        run_retention=options["run_retention"],
        max_artifacts=options["max_artifact_mib"],
        audit_retention=options["audit_retention"],
        node_retention=options["node_retention"],
        database_connections=options["database_connections"],
        watch_disk=options["watch_disk"],
        health_server_address=options["health_server_address"],
        http_health_address=options["http_health_address"],
        drain_delay=read.drain_delay(options),
        log=read.log_settings(options),
    )


def _superexec_settings(options: read.Options) -> SuperexecSettings:
    port = 8000 if superexec_version() >= RUNTIME_OVER_HTTP else 9091
    address = options["runtime_api_address"] or join_address(LOOPBACK, port)
    ca_certificate = None if options["insecure"] else options["ssl_ca_certfile"]
    if ca_certificate is not None:
        check_certificate(ca_certificate, "--ssl-ca-certfile")
    elif not (options["insecure"] or is_loopback(address)):
        raise click.UsageError(
            f"The SuperExec would connect to {address} without TLS. Remedy: add "
            "--ssl-ca-certfile or --insecure; or use --isolation process and start the "
            "SuperExec elsewhere."
        )
    settings = read.superexec_settings(options, reachable(address), ca_certificate)
    check_superexec_user(settings)
    return settings


async def _run(settings: SuperlinkSettings) -> None:
    from flower_nats.superlink.worker import serve

    if settings.superexec is None:
        await serve(settings)
        return
    supervisor = Supervisor()
    if runs_apps_as_root(settings.superexec):
        log.warning("apps_run_as_root", remedy="--superexec-user NAME")
    with TemporaryDirectory(prefix="flower-nats-") as folder:
        superexec = SuperexecService(
            settings.superexec,
            Path(folder),
            lambda: settings.nats,
            ca_certificate=settings.nats_ca_certificate,
        )
        try:
            await supervisor.start([superexec], _SUPEREXEC_GRACE_SECONDS)
            supervisor.watch()
            await serve(settings)
        finally:
            await supervisor.stop()
