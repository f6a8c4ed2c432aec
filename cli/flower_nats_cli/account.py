"""`flower-nats account`: who may call the Control API of a runtime."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from flower_nats.model.account import (
    LONGEST_TOKEN_DAYS,
    Role,
    account_token_hash,
    new_token,
)
from flower_nats.model.password import BadPassword, hash_password
from flower_nats_cli import options as opts
from flower_nats_cli.addresses import address_argument
from flower_nats_cli.operator_commands import ask, runtime_options, show

_role_option = click.option(
    "--role",
    type=click.Choice([str(role) for role in Role]),
    default=str(Role.USER),
    show_default=True,
    help="user: may do what its roles in federations allow. operator: may do everything.",
)


_password_file_option = click.option(
    "--password-file",
    type=opts.FILE,
    help="File with the password; a final line break is ignored. Default: the command asks for the "
    "password, or reads it as a line from a pipe.",
)


def _read_password(file: Path | None) -> str:
    """Return the hash of a password: from a file, a prompt, or the first line of a pipe.

    The password goes nowhere else.
    """
    if file is None and sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        try:
            line = sys.stdin.readline() if file is None else file.read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise click.UsageError("The password is not UTF-8 text.") from exc
        password = line.removesuffix("\n").removesuffix("\r")
    try:
        return hash_password(password)
    except BadPassword as exc:
        raise click.UsageError(str(exc)) from exc


@click.group()
def account() -> None:
    """Manage the accounts of a runtime that was started with --accounts."""


@account.command()
@click.argument("name")
@_role_option
@_password_file_option
@click.option(
    "--no-password",
    is_flag=True,
    help="The account has no password, only tokens: for programs.",
)
@runtime_options
@click.pass_context
def create(
    context: click.Context,
    /,
    name: str,
    role: str,
    password_file: Path | None,
    no_password: bool,
    **options: Any,
) -> None:
    """Create an account. The command asks for its password, or reads it from a file."""
    password_hash = None if no_password else _read_password(password_file)
    ask(context, options, "CreateAccount", name=name, role=role, password_hash=password_hash)
    click.echo(f"Account {name} is created, with the role {role}.")


@account.command()
@click.argument("name")
@_password_file_option
@runtime_options
@click.pass_context
def passwd(
    context: click.Context, /, name: str, password_file: Path | None, **options: Any
) -> None:
    """Set a new password for an account, and end its logins. Tokens of `account token` stay valid."""
    ask(
        context,
        options,
        "SetAccountPassword",
        name=name,
        password_hash=_read_password(password_file),
    )
    click.echo(f"Account {name} has a new password, and must log in again.")


@account.command("list")
@opts.format_option
@runtime_options
@click.pass_context
def list_accounts(context: click.Context, /, **options: Any) -> None:
    """Show all accounts."""
    found = ask(context, options, "ListAccounts")["accounts"]
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "NAME": lambda one: one["name"],
        "ROLE": lambda one: one["role"],
        "FROM": lambda one: one["issuer"] or "this runtime",
        "CREATED": lambda one: one["created_at"],
        "STATE": lambda one: "disabled" if one["disabled_at"] else "enabled",
    }
    show(found, columns, as_json=options["format"] == "json")


@account.command()
@click.argument("name")
@runtime_options
@click.pass_context
def disable(context: click.Context, /, name: str, **options: Any) -> None:
    """Block an account, and revoke all its tokens."""
    ask(context, options, "DisableAccount", name=name)
    click.echo(f"Account {name} is disabled. Its tokens are revoked.")


@account.command()
@click.argument("name")
@runtime_options
@click.pass_context
def enable(context: click.Context, /, name: str, **options: Any) -> None:
    """Unblock an account. It has to log in again."""
    ask(context, options, "EnableAccount", name=name)
    click.echo(f"Account {name} is enabled.")


@account.command()
@click.argument("name")
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@runtime_options
@click.pass_context
def role(context: click.Context, /, name: str, role: str, **options: Any) -> None:
    """Change the role of an account in the runtime as a whole."""
    ask(context, options, "SetAccountRole", name=name, role=role)
    click.echo(f"Account {name} has the role {role}.")


@account.group()
def token() -> None:
    """Manage tokens of an account, for programs such as CI jobs."""


@token.command("create")
@click.argument("name")
@click.argument("token_name", metavar="TOKEN_NAME")
@click.option(
    "--days",
    type=click.IntRange(1, LONGEST_TOKEN_DAYS),
    default=90,
    show_default=True,
    help="Days after which the token expires.",
)
@click.option(
    "--credentials-for",
    type=address_argument,
    metavar="HOST:PORT",
    help=(
        "Print the file credentials.yaml for the FLWR_HOME of a program. Its `flwr` then uses "
        "the token for this address, which its config.toml must name. Default: print only the "
        "token."
    ),
)
@runtime_options
@click.pass_context
def create_token(
    context: click.Context,
    /,
    name: str,
    token_name: str,
    days: int,
    credentials_for: str | None,
    **options: Any,
) -> None:
    """Make a token, and print it. It is shown only once."""
    made = new_token("token")
    ask(
        context,
        options,
        "CreateAccountToken",
        name=name,
        token=token_name,
        token_hash=account_token_hash(made),
        days=days,
    )
    click.echo(made if credentials_for is None else _credentials(credentials_for, made))


def _credentials(address: str, token: str) -> str:
    """Return the file that stock commands have their tokens in (flwr 1.42 `cli/constant.py`)."""
    stored = {"authn-type": "oidc", "oidc-access-token": token, "oidc-refresh-token": token}
    return "\n".join(
        f"flower.account-auth.{address}.{key}: {b64encode(value.encode()).decode()}"
        for key, value in stored.items()
    )


@token.command("list")
@click.argument("name")
@opts.format_option
@runtime_options
@click.pass_context
def list_tokens(context: click.Context, /, name: str, **options: Any) -> None:
    """List the names of an account's tokens."""
    found = ask(context, options, "ListAccountTokens", name=name)["tokens"]
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "NAME": lambda one: one["name"],
        "CREATED": lambda one: one["created_at"],
        "ENDS": lambda one: one["expires_at"],
    }
    show(found, columns, as_json=options["format"] == "json")


@token.command("revoke")
@click.argument("name")
@click.argument("token_name", metavar="TOKEN_NAME")
@runtime_options
@click.pass_context
def revoke_token(context: click.Context, /, name: str, token_name: str, **options: Any) -> None:
    """Revoke a token."""
    ask(context, options, "RevokeAccountToken", name=name, token=token_name)
    click.echo(f"Token {token_name} of {name} is revoked.")
