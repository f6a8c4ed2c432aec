"""`flower-nats backup`: copy what a runtime keeps, while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.permissions import User
from flower_nats.broker.stream_copies import save_stream
from flower_nats.embedded.postgres_server import find_client, no_postgres_settings
from flower_nats.logs import configure_logs
from flower_nats.settings import LogSettings
from flower_nats.store.dump import dump, look
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.backup_files import DATABASE, LOGS, BackupError, draft_of, write_about
from flower_nats_cli.datadir import DataDir, never_started
from flower_nats_cli.embedded_servers import ServerUrls, embedded_servers
from flower_nats_cli.options import nats_urls
from flower_nats_cli.stack import DATABASE_URL, nats_file_of
from flower_nats_cli.which_runtime import servers_given

_CONNECT_SECONDS = 5.0


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@opts.data_dir_option
@opts.status_nats_options
@opts.database_options
@click.pass_context
def backup(context: click.Context, /, directory: Path, **options: Any) -> None:
    """Copy runs, nodes, apps, contexts and logs into DIRECTORY, which must not exist yet.

    The runtime may be running. Unfinished runs end as failed when the backup is restored. For a
    runtime that was not started by `flower-nats up`, name both NATS and PostgreSQL.
    """
    configure_logs(LogSettings(level="error"))
    given = servers_given(context, options)
    if given is not None:
        nats, ca_certificate = given
        urls = ServerUrls(nats, read.database(options))
        asyncio.run(_save(directory, urls, ca_certificate))
    else:
        _refuse_database(options)
        asyncio.run(_save_data_dir(directory, DataDir(options["data_dir"])))
    click.echo(
        f"The backup is in {directory}. It contains models and logs: protect it as you protect "
        "those."
    )


def _refuse_database(options: read.Options) -> None:
    if options["database"] is not None or options["database_file"] is not None:
        raise click.UsageError("--database needs --nats as well.")


async def _save_data_dir(directory: Path, data: DataDir) -> None:
    if not data.postgres.exists():
        raise click.ClickException(never_started(data.path))
    async with _servers_of(data) as urls:
        with no_postgres_settings():
            await _save(directory, urls)


@asynccontextmanager
async def _servers_of(data: DataDir) -> AsyncIterator[ServerUrls]:
    """Name the servers of a data directory, which are started if no runtime is."""
    state = data.state()
    if state is not None:
        nats = nats_urls(data.kept_secret(nats_file_of(User.BACKUP)))
        yield ServerUrls(nats, data.kept_secret(DATABASE_URL))
        return
    # Raises if a runtime owns the directory and is not ready.
    with data.owned():
        async with embedded_servers(data) as urls:
            yield urls


async def _save(directory: Path, urls: ServerUrls, ca_certificate: Path | None = None) -> None:
    connection = await Connection.connect(
        urls.nats, "flower-nats backup", _CONNECT_SECONDS, ca_certificate
    )
    try:
        with draft_of(directory) as draft:
            server, migration = await look(urls.database)
            if not migration:
                raise BackupError("The database is empty: no superlink has used it yet.")
            taken_at = datetime.now(UTC).isoformat(timespec="seconds")
            # The database comes first. So each run that is finished in its copy has a whole log in
            # the other.
            await dump(find_client("pg_dump", server), urls.database, draft / DATABASE)
            with (draft / LOGS).open("wb") as file:
                logs = await save_stream(connection, subjects.LOGS_STREAM, file)
            write_about(
                draft,
                version=version("flower-nats"),
                taken_at=taken_at,
                migration=migration,
                logs=logs,
            )
    finally:
        await connection.close()
