"""`flower-nats console`: web pages that show the federation."""

from __future__ import annotations

from typing import Any

import click

from flower_nats.settings import ConsoleSettings
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.addresses import address_argument, is_of_loopback
from flower_nats_cli.certificates import check_certificate, check_key


@click.command()
@opts.nats_options
@click.option(
    "--address",
    type=address_argument,
    default="127.0.0.1:9090",
    show_default=True,
    metavar="HOST:PORT",
    help="Address of the pages. Without TLS or --insecure it must be a loopback address.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help=(
        "Serve another address as well, unencrypted: for a container whose port is published "
        "only on 127.0.0.1 of its host. Browsers must use the name 127.0.0.1 or localhost."
    ),
)
@click.option(
    "--ssl-certfile",
    type=opts.FILE,
    help=(
        "Certificate (PEM) for TLS. With it, and with --accounts, other machines may reach the "
        "console. Browsers must use a name in the certificate."
    ),
)
@click.option("--ssl-keyfile", type=opts.FILE, help="Private key of that certificate.")
@opts.log_options
def console(**options: Any) -> None:
    """Start one console: web pages that show runs, nodes and the state of the runtime.

    It needs only NATS, asks superlinks, and stores nothing: start and stop it as you like. Without
    TLS it serves only this machine. From elsewhere, use ssh -L 9090:127.0.0.1:9090 HOST.
    """
    settings = console_settings(options)
    read.start_logs(settings.log)
    import uvloop

    from flower_nats_console.process import serve

    uvloop.run(serve(settings))


def console_settings(options: read.Options) -> ConsoleSettings:
    """Turn the command's options into settings; raises UsageError."""
    address, certificate, key = (options[one] for one in ("address", "ssl_certfile", "ssl_keyfile"))
    if (certificate is None) is not (key is None):
        raise click.UsageError("--ssl-certfile and --ssl-keyfile belong together: give both.")
    if not (is_of_loopback(address) or certificate or options["insecure"]):
        raise click.UsageError(
            f"--address {address} can be reached by other machines, but without --ssl-certfile "
            "and --ssl-keyfile the console has no TLS. Give both, or use 127.0.0.1 and connect "
            "through ssh -L 9090:127.0.0.1:9090 HOST. In a container, use --insecure."
        )
    if certificate is not None:
        check_certificate(certificate, "--ssl-certfile")
        check_key(certificate, key, "--ssl-keyfile")
    nats = read.nats_servers(options)
    return ConsoleSettings(
        nats=nats,
        nats_ca_certificate=read.nats_ca_certificate(options, nats),
        address=address,
        certificate=certificate,
        key=key,
        only_accounts=not is_of_loopback(address) and not options["insecure"],
        log=read.log_settings(options),
    )
