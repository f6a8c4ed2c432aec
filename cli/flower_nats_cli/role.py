"""`flower-nats role`: what an account may do in a federation that it is in."""

from __future__ import annotations

from typing import Any

import click

from flower_nats.model.federation import MemberRole
from flower_nats_cli.operator_commands import ask, runtime_options


@click.command()
@click.argument("federation")
@click.argument("account")
@click.argument("role", type=click.Choice([str(role) for role in MemberRole]))
@runtime_options
@click.pass_context
def role(
    context: click.Context, /, federation: str, account: str, role: str, **options: Any
) -> None:
    """Give ACCOUNT another role in FEDERATION. With 'owner', the former owner becomes an admin."""
    ask(context, options, "SetMemberRole", federation=federation, account=account, role=role)
    click.echo(f"{account} is {role} in {federation}.")
