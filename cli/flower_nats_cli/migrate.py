"""`flower-nats migrate`: bring the database to this version, with a role that superlinks do not have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from flower_nats.logs import configure_logs
from flower_nats.settings import LogSettings
from flower_nats.store.audit import AuditTrail
from flower_nats.store.connection import Database
from flower_nats.store.dsn import login_of
from flower_nats.store.migrate import migrate as migrate_database
from flower_nats.store.roles import make_serving_role
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read


@click.command()
@opts.database_options
@click.option(
    "--serving-role",
    metavar="URL",
    type=opts.database_url,
    help=(
        "URL of the database for superlinks. The role in it is created, with its password, and "
        "may read and write rows. Without this option, no role is created."
    ),
)
@click.option(
    "--serving-role-file",
    type=opts.FILE,
    help="File with the value of --serving-role.",
)
@click.option(
    "--audit-retention",
    type=click.IntRange(min=0, max=36_500),
    metavar="DAYS",
    help=(
        "Days for which the database keeps events of the audit trail at least, even if "
        "superlinks have fewer; 0: for ever. Without this option, the last value stays; at "
        "first 730."
    ),
)
def migrate(**options: Any) -> None:
    """Create or update the tables for this version. Run this before superlinks start.

    --database names a role that owns the database; to create the serving role it must be a
    superuser. A second run changes nothing. If the role of superlinks owns the database, this
    command is not needed.
    """
    configure_logs(LogSettings(level="error"))
    database = read.database(options)
    serving = _serving_role(options, login_of(database)[0])
    applied = asyncio.run(_migrate(database, serving, options["audit_retention"]))
    click.echo(f"{len(applied)} migrations were applied. The database now fits this version.")
    if serving is not None:
        click.echo(f"Superlinks may connect as {serving[0]}, a role that cannot change tables.")


def _serving_role(options: read.Options, owner: str) -> tuple[str, str] | None:
    text: str | None = options["serving_role"]
    path: Path | None = options["serving_role_file"]
    if text is None and path is None:
        return None
    name, password = login_of(read.value_or_file(options, "serving_role", opts.database_url))
    if not (name and password):
        raise click.UsageError("--serving-role names no user, or no password.")
    if name == owner:
        raise click.UsageError(
            "--serving-role names the user of --database, which could then change tables. "
            "Remedy: name another role."
        )
    return name, password


async def _migrate(
    dsn: str, serving: tuple[str, str] | None, audit_retention: int | None
) -> list[str]:
    database = Database(dsn, max_connections=1)
    await database.open()
    try:
        applied = await migrate_database(database)
        if audit_retention is not None:
            await AuditTrail(database).set_bound(audit_retention)
    finally:
        await database.close()
    if serving is not None:
        await make_serving_role(dsn, login_of(dsn)[0], *serving)
    return applied
