"""`flower-nats console`: web pages that show the federation."""

from __future__ import annotations

from typing import Any

import click

from flower_nats.settings import ConsoleSettings
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.addresses import address_argument, is_of_loopback


@click.command()
@opts.nats_options
@click.option(
    "--address",
    type=address_argument,
    default="127.0.0.1:9090",
    show_default=True,
    metavar="HOST:PORT",
    help="Address that the pages are served on: of this machine alone, unless --insecure is said.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Serve another address as well, unencrypted: for a container whose port is published on "
    "127.0.0.1 of its host alone. Pages are shown under the names 127.0.0.1 and localhost only.",
)
@opts.log_options
def console(**options: Any) -> None:
    """Start one console: web pages that show runs, nodes and whether all is well.

    It needs NATS only, asks superlinks, and keeps nothing: start and stop it as you like. It serves this
    machine alone; from elsewhere it is reached by ssh -L 9090:127.0.0.1:9090 HOST.
    """
    settings = console_settings(options)
    read.start_logs(settings.log)
    import uvloop

    from flower_nats_console.process import serve

    uvloop.run(serve(settings))


def console_settings(options: read.Options) -> ConsoleSettings:
    """Turn the command's options into settings; raises UsageError."""
    address = options["address"]
    if not (is_of_loopback(address) or options["insecure"]):
        raise click.UsageError(
            f"--address {address} is reached by other machines, and the console speaks no TLS. Serve "
            "127.0.0.1, and reach it by ssh -L 9090:127.0.0.1:9090 HOST; --insecure is for containers."
        )
    nats = read.nats_servers(options)
    return ConsoleSettings(
        nats=nats,
        nats_ca_certificate=read.nats_ca_certificate(options, nats),
        address=address,
        log=read.log_settings(options),
    )
