"""Migrations: plain SQL files, applied in the order of their names, each once.

`migrations/*.sql` is what happened over time; `schema.sql` is where that has led, for people to
read. A test proves that both give the same database.
"""

from importlib import resources

from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError
from flower_nats.store.connection import Database, NotAllowed, Transaction
from flower_nats.store.queries import load

log = get_logger(__name__)


class MayNotMigrate(FlowerNatsError):
    """The database has to be changed, by another role than this."""


_SQL = load("database")


def migrations() -> dict[str, str]:
    """Return every migration by name, in the order in which they apply."""
    folder = resources.files("flower_nats.store").joinpath("migrations")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name
    )
    return {file.name.removesuffix(".sql"): file.read_text("utf-8") for file in files}


async def migrate(database: Database) -> list[str]:
    """Bring the database to today's schema and return what was applied.

    Replicas that start together wait for each other: one migrates, the others find it done. Raises
    `MayNotMigrate` where something is to be applied by a role that does not own the database.
    """
    missing = await database.transaction(_missing)
    if not missing:
        return []
    try:
        applied = await database.transaction(_apply, timeout=None)
    except NotAllowed as exc:
        raise MayNotMigrate(
            f"The database lacks {len(missing)} migrations, from {missing[0]} on, and this role may not "
            "change it. Remedy: `flower-nats migrate` with the role that owns it, and start again."
        ) from exc
    if applied:
        log.info("database_migrated", migrations=applied)
    return applied


async def _missing(transaction: Transaction) -> list[str]:
    """Return what is to be applied; to look takes no rights but to read."""
    found = await transaction.fetch_one(_SQL["has_migrations"])
    rows = await transaction.fetch_all(_SQL["list_migrations"]) if found and found["found"] else []
    return [name for name in migrations() if name not in {row["name"] for row in rows}]


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
