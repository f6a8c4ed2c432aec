"""Migrations lead to the documented schema, and replicas can start together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from flower_nats.store.connection import Database
from flower_nats.store.migrate import migrate, migrations

SCHEMA = Path(__file__).parents[2] / "flower_nats" / "store" / "schema.sql"

CATALOGUE = """
    SELECT 'column', table_name, column_name,
        -- Not the position itself: dropped columns keep theirs.
        (row_number() OVER (PARTITION BY table_name ORDER BY ordinal_position))::text,
        data_type, is_nullable, coalesce(column_default, ''), is_identity
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'index', tablename, indexname, '', indexdef, '', '', ''
    FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, '', pg_get_constraintdef(oid),
        '', '', ''
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'view', viewname, '', '', definition, '', '', ''
    FROM pg_views WHERE schemaname = 'public'
    UNION ALL
    SELECT 'function', proname, '', '', pg_get_functiondef(oid), '', '', ''
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'trigger', tgrelid::regclass::text, tgname, '', pg_get_triggerdef(oid), '', '', ''
    FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1, 2, 3, 4
"""


def describe(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(CATALOGUE).fetchall()
    return [row for row in rows if row[1] != "schema_migration"]


async def test_all_migrations_together_are_the_schema(pg_dsn: str, empty_pg_dsn: str) -> None:
    migrated, read = pg_dsn, empty_pg_dsn
    with psycopg.connect(read) as connection:
        connection.execute(SCHEMA.read_text("utf-8"))

    assert describe(migrated) == describe(read)
    assert describe(migrated)


async def test_replicas_that_start_together_migrate_once(empty_pg_dsn: str) -> None:
    replicas = [Database(empty_pg_dsn, max_connections=2) for _ in range(4)]
    await asyncio.gather(*(replica.open() for replica in replicas))

    applied = await asyncio.gather(*(migrate(replica) for replica in replicas))

    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]
    assert await migrate(replicas[0]) == []
    await asyncio.gather(*(replica.close() for replica in replicas))


async def test_a_replica_waits_for_anothers_migration_for_longer_than_a_statement_may_take(
    empty_pg_dsn: str,
) -> None:
    replica = Database(empty_pg_dsn, max_connections=1, patience=0)
    await replica.open()
    await replica.execute("SELECT set_config('statement_timeout', '200ms', false)")
    with psycopg.connect(empty_pg_dsn, autocommit=True) as migrating:
        migrating.execute("SELECT pg_advisory_lock(7310972231)")
        waiting = asyncio.create_task(migrate(replica))
        query = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'"
            " AND datname = current_database() AND now() - query_start > interval '600ms'"
        )
        while not waiting.done() and migrating.execute(query).fetchone() is None:
            await asyncio.sleep(0.02)

    assert len(await waiting) == len(migrations())
    await replica.close()
