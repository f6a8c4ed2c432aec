"""Migrations: plain SQL files, applied in the order of their names, each once.

`migrations/*.sql` has all changes over time; `schema.sql` has their result, for people to read. A
test proves that both give the same database.

One database serves one version of flower-nats at a time: processes of two versions would read each
other's rows and calls wrongly. So a process that starts waits until those of another version have
ended, and gives up if they do not end.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from flower_nats.logs import get_logger
from flower_nats.model.about import UPGRADE, OtherVersion, own_version
from flower_nats.model.errors import FlowerNatsError
from flower_nats.store.connection import Database, NotAllowed, Transaction
from flower_nats.store.queries import load

log = get_logger(__name__)


class MayNotMigrate(FlowerNatsError):
    """The database has to be changed, by another role than this."""


class NewerDatabase(FlowerNatsError):
    """A newer version of flower-nats has changed the database."""


_SQL = load("database")

OTHERS_END_SECONDS = 25.0
"""Seconds for replicas of another version to end, or to become silent if they were killed: a little
more than `SILENT_AFTER`."""

SILENT_AFTER = 15.0
"""Seconds after which a replica without a sign of life is gone: it gives one every five seconds."""

_LOOK_EVERY = 0.5
"""Seconds between two checks whether they have ended."""


@dataclass(frozen=True)
class _State:
    """The state of a database, compared with this version."""

    unknown: Sequence[str]
    """Applied migrations that this version does not know."""
    missing: Sequence[str]
    """Migrations that are still to be applied."""
    others: Sequence[str]
    """Running replicas of another version."""


def migrations() -> dict[str, str]:
    """Return every migration by name, in the order in which they are applied."""
    folder = resources.files("flower_nats.store").joinpath("migrations")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name
    )
    return {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in files}


async def migrate(database: Database, patience: float = OTHERS_END_SECONDS) -> list[str]:
    """Update the database's schema; return the migrations that were applied.

    Of replicas that start together, one migrates and the others wait. This waits `patience` seconds
    for replicas of another version to end. Raises `OtherVersion` if they still run, `NewerDatabase`
    if the database is of a newer version, and `MayNotMigrate` if a migration is needed and our role
    does not own the database.
    """
    missing = await _when_alone(database, patience)
    if not missing:
        return []
    return await apply_migrations(database)


async def apply_migrations(database: Database) -> list[str]:
    """Update the schema of a database that no other process uses; see `migrate`."""
    state = await database.transaction(_look)
    _check_known(state)
    if not state.missing:
        return []
    try:
        applied = await database.transaction(_apply, timeout=None)
    except NotAllowed as exc:
        raise MayNotMigrate(
            f"The database lacks {len(state.missing)} migrations, from {state.missing[0]} on, "
            "and this role may not change the database. Remedy: run `flower-nats migrate` "
            "with the role that owns the database, then start again."
        ) from exc
    if applied:
        log.info("database_migrated", migrations=applied)
    return applied


async def _when_alone(database: Database, patience: float) -> Sequence[str]:
    """Return the missing migrations, once no replica of another version runs."""
    deadline = time.monotonic() + patience
    told = False
    while True:
        state = await database.transaction(_look)
        _check_known(state)
        if not state.others:
            return state.missing
        if time.monotonic() > deadline:
            raise OtherVersion(
                f"This is flower-nats {own_version()}, and replicas of another version are using "
                f"the database: {', '.join(state.others)}. Nothing was changed. {UPGRADE}"
            )
        if not told:
            log.warning("waiting_for_another_version_to_end", replicas=state.others)
            told = True
        await asyncio.sleep(_LOOK_EVERY)


def _check_known(state: _State) -> None:
    if state.unknown:
        raise NewerDatabase(
            f"A newer flower-nats has changed the database: flower-nats {own_version()} does "
            f"not know the migration {state.unknown[-1]}. Nothing was changed. Remedy: use "
            "the newer version; or restore the backup from before the upgrade "
            "(docs/operations.md#upgrade-and-rollback)."
        )


async def _look(transaction: Transaction) -> _State:
    """Compare a database with this version; this needs only rights to read."""
    found = await transaction.fetch_one(_SQL["has_migrations"])
    if not (found and found["found"]):
        return _State((), tuple(migrations()), ())
    applied = {row["name"] for row in await transaction.fetch_all(_SQL["list_migrations"])}
    missing = [name for name in migrations() if name not in applied]
    replicas = await transaction.fetch_all(_SQL["replicas_at_work"], seconds=SILENT_AFTER)
    return _State(
        unknown=sorted(applied - migrations().keys()),
        missing=missing,
        # A replica that uses a database with missing migrations has another version, whatever it
        # reports.
        others=[
            f"{row['kind']} of {row['version'] or 'an earlier version'}, host {row['host'] or 'unknown'}"
            for row in replicas
            if missing or row["version"] != own_version()
        ],
    )


async def _apply(transaction: Transaction) -> list[str]:
    await transaction.execute(_SQL["lift_bounds"])
    await transaction.fetch_one(_SQL["lock_migrations"])
    await transaction.execute(_SQL["create_migrations"])
    done = {row["name"] for row in await transaction.fetch_all(_SQL["list_migrations"])}
    missing = {name: text for name, text in migrations().items() if name not in done}
    for name, text in missing.items():
        await transaction.script(text)
        await transaction.execute(_SQL["note_migration"], name=name)
    return list(missing)
