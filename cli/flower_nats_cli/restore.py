"""`flower-nats restore`: make a runtime from a backup."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from pathlib import Path
from typing import Any

import click

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.stream_copies import load_stream, remove_stream
from flower_nats.broker.streams import missing_streams
from flower_nats.embedded.postgres_server import find_client, no_postgres_settings
from flower_nats.logs import configure_logs
from flower_nats.settings import LogSettings
from flower_nats.store.dump import knows, look
from flower_nats.store.dump import restore as restore_database
from flower_nats_cli import options as opts
from flower_nats_cli import settings_from_options as read
from flower_nats_cli.backup_files import Backup, BackupError, read_backup
from flower_nats_cli.datadir import DataDir
from flower_nats_cli.embedded_servers import ServerUrls, embedded_servers
from flower_nats_cli.which_runtime import servers_given

_CONNECT_SECONDS = 5.0


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@opts.data_dir_option
@click.option(
    "--replicas",
    type=click.IntRange(min=1, max=32),
    default=1,
    show_default=True,
    help=(
        "Replicas that `flower-nats up` will start on the data directory. With 3 or more, NATS "
        "is a cluster."
    ),
)
@opts.status_nats_options
@opts.database_options
@click.pass_context
def restore(context: click.Context, /, directory: Path, **options: Any) -> None:
    """Make a new data directory from the backup in DIRECTORY. Then start `flower-nats up`.

    With --nats and --database, restore into a NATS without our streams and into an empty database.
    Then start superlinks and gateways.
    """
    configure_logs(LogSettings(level="error"))
    backup = read_backup(directory)
    if not knows(backup.migration):
        raise BackupError(
            f"{directory} was made by flower-nats {backup.version}, which is newer than this one. "
            "Remedy: restore it with that version, or a newer one."
        )
    given = servers_given(context, options)
    if given is not None:
        nats, ca_certificate = given
        urls = ServerUrls(nats, read.database(options))
        asyncio.run(_load(backup, urls, ca_certificate))
        then = "Now start superlinks and gateways."
    else:
        data = DataDir(options["data_dir"])
        asyncio.run(_load_data_dir(backup, data, options["replicas"]))
        then = f"Now start `flower-nats up --data-dir {shlex.quote(str(data.path))}`."
    click.echo(f"Restored the backup of {backup.taken_at}. {then}")


async def _load_data_dir(backup: Backup, data: DataDir, replicas: int) -> None:
    with data.owned():
        taken = [path for path in data.path.iterdir() if path.name.startswith(("nats", "postgres"))]
        if taken:
            raise BackupError(
                f"{data.path} has the data of a runtime. Nothing was changed. Remedy: --data-dir "
                "with a new directory."
            )
        try:
            async with embedded_servers(data, replicas) as urls:
                with no_postgres_settings():
                    await _load(backup, urls)
        except BaseException:
            # A part of a backup is no runtime.
            for path in data.path.glob("*"):
                if path.name.startswith(("nats", "postgres")):
                    shutil.rmtree(path)
            raise


async def _load(backup: Backup, urls: ServerUrls, ca_certificate: Path | None = None) -> None:
    connection = await Connection.connect(
        urls.nats, "flower-nats restore", _CONNECT_SECONDS, ca_certificate
    )
    try:
        await _check_no_streams(connection)
        server, migration = await look(urls.database)
        if migration:
            raise BackupError(
                "The database has the data of a runtime. Nothing was changed. Remedy: use an "
                "empty database."
            )
        program = find_client("pg_restore", server)
        with backup.logs_file.open("rb") as file:
            await load_stream(connection, dict(backup.logs), file)
        try:
            await restore_database(program, urls.database, backup.database)
        except BaseException:
            await remove_stream(connection, subjects.LOGS_STREAM)
            raise
    finally:
        await connection.close()


async def _check_no_streams(connection: Connection) -> None:
    """Raise BackupError if a runtime uses the servers that are to be filled."""
    present = set(subjects.STREAMS) - await missing_streams(connection)
    if present:
        raise BackupError(
            f"NATS has streams of a runtime: {', '.join(sorted(present))}. Nothing was changed. "
            "Remedy: end its superlinks and gateways; if these streams are no longer needed, "
            "remove them with `nats stream rm`."
        )
