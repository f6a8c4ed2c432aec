"""`flower-nats gateway`: one edge of the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flower_nats.settings import GatewaySettings
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.addresses import EVERYWHERE, LOOPBACK, loopback_argument
from flower_nats_cli.runtime_access import with_login_page


@click.command()
@opts.nats_options
@opts.api_address_options
@opts.tls_options
@opts.tls_terminated_option
@click.option(
    "--http-loopback-address",
    type=loopback_argument,
    metavar="HOST:PORT",
    help=(
        "A loopback address that also serves HTTP, without TLS: for a SuperExec on this machine "
        "if the certificate is not valid for 127.0.0.1. Default: none."
    ),
)
@opts.login_url_option
@opts.require_accounts_option
@opts.supernode_auth_option
@opts.record_metrics_option
@opts.superexec_secret_option
@opts.peer_limit_options
@opts.balancer_options
@opts.storage_limit_options
@opts.health_option
@opts.http_health_options
@opts.log_options
def gateway(**options: Any) -> None:
    """Start one gateway: it serves Flower's APIs and needs only NATS.

    SuperNodes, the flwr command and SuperExecs connect to it. Start as many as you like. Without
    --insecure or --tls-terminated it needs TLS certificates. By default, other machines reach only
    the API of SuperNodes, and that of SuperExecs if these use TLS and a shared secret.
    """
    settings = gateway_settings(options)
    read.start_logs(settings.log)
    import uvloop

    from flower_nats_gateway.process.gateway import serve

    uvloop.run(serve(settings))


def gateway_settings(options: read.Options) -> GatewaySettings:
    """Turn the command's options into settings; raises UsageError."""
    tls = read.tls_files(options)
    terminated = options["tls_terminated"]
    if tls is None and not (options["insecure"] or terminated):
        raise click.UsageError(
            "TLS certificates are required: give --ssl-certfile, --ssl-keyfile and "
            "--ssl-ca-certfile. To serve without encryption, add --insecure."
        )
    nats = read.nats_servers(options)
    appio_tls, secret = read.tls_files(options, "appio_"), read.superexec_secret_file(options)
    settings = GatewaySettings(
        nats=nats,
        nats_ca_certificate=read.nats_ca_certificate(options, nats),
        http_api_address=read.http_api_address(options, EVERYWHERE),
        control_to_others=options["http_control"],
        runtime_to_others=options["insecure_appio"] or bool(secret and (tls or terminated)),
        serverappio_api_address=read.serverappio_api_address(
            options, EVERYWHERE, protected=bool(secret and (appio_tls or terminated))
        ),
        fleet_api_address=read.api_address(options, "fleet", EVERYWHERE, 9092),
        control_api_address=read.api_address(options, "control", LOOPBACK, 9093),
        http_loopback_address=options["http_loopback_address"] or "",
        require_accounts=options["require_accounts"],
        login_url=options["login_url"] or "",
        tls=tls,
        appio_tls=appio_tls,
        superexec_auth_secret_file=secret,
        enable_supernode_auth=read.check_supernode_auth(options, encrypted=bool(tls or terminated)),
        record_metrics=options["record_metrics"],
        max_calls_per_address=options["max_calls_per_address"],
        max_connections_per_address=options["max_connections_per_address"],
        trusted_balancers=options["trusted_balancers"],
        control_by_balancer=options["control_by_balancer"],
        # Not `resolve`: a certificate may be renewed by giving a symbolic link another target.
        balancer_certificates=tuple(Path(one).absolute() for one in options["balancer_certfile"]),
        storage_limits=read.storage_limits(options),
        health_server_address=options["health_server_address"],
        http_health_address=options["http_health_address"],
        drain_delay=read.drain_delay(options),
        log=read.log_settings(options),
    )
    read.check_gateway_addresses(settings)
    return with_login_page(settings)
