"""`flower-nats webhook`: the addresses that get events over HTTP."""

from __future__ import annotations

from typing import Any

import click

from flower_nats.model.event import GROUPS, KINDS
from flower_nats_cli import options as opts
from flower_nats_cli.operator_commands import ask, runtime_options, show

_WEBHOOK = click.argument("webhook_id", metavar="NUMBER", type=click.IntRange(1, 2**63 - 1))


@click.group()
def webhook() -> None:
    """Send events to your own address, over HTTP."""


@webhook.command("add")
@click.argument("url")
@click.option(
    "--kind",
    multiple=True,
    required=True,
    type=click.Choice([*GROUPS, *KINDS]),
    help="A kind of events, or a group of kinds. The option can be repeated.",
    metavar="KIND",
)
@click.option("--federation", default="", help="Only events of this federation.")
@runtime_options
@click.pass_context
def add(
    context: click.Context, /, url: str, kind: tuple[str, ...], federation: str, **options: Any
) -> None:
    """Send events to URL. They are signed with the secret that is printed; it is not shown again."""
    added = ask(context, options, "AddWebhook", url=url, kinds=list(kind), federation=federation)
    click.echo(f"Webhook {added['webhook_id']} was added. Its events are signed with this secret:")
    click.echo(added["secret"])


@webhook.command("list")
@opts.format_option
@runtime_options
@click.pass_context
def list_webhooks(context: click.Context, /, **options: Any) -> None:
    """Show the webhooks."""
    found = ask(context, options, "Webhooks")["webhooks"]
    show(
        found,
        {
            "NUMBER": lambda one: one["webhook_id"],
            "ADDRESS": lambda one: one["url"],
            "FEDERATION": lambda one: one["federation"] or "all",
            "WAITING": lambda one: str(one["waiting"]),
            "LAST DELIVERED": lambda one: one["delivered_at"] or "never",
            "KINDS": lambda one: ", ".join(one["kinds"]),
        },
        as_json=options["format"] == "json",
    )


@webhook.command("test")
@_WEBHOOK
@runtime_options
@click.pass_context
def test(context: click.Context, /, webhook_id: int, **options: Any) -> None:
    """Send an event to one webhook, to see that it arrives."""
    ask(context, options, "TestWebhook", webhook_id=webhook_id)
    click.echo("A test is sent. The console's page of notifications says if it does not arrive.")


@webhook.command("remove")
@_WEBHOOK
@runtime_options
@click.pass_context
def remove(context: click.Context, /, webhook_id: int, **options: Any) -> None:
    """Remove a webhook."""
    ask(context, options, "RemoveWebhook", webhook_id=webhook_id)
    click.echo(f"Webhook {webhook_id} was removed.")
