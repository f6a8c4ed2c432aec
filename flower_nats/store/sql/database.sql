-- prepare_session: Time limits for one statement, and for the transaction of a stopped replica.
SELECT
    set_config('statement_timeout', '10s', false),
    set_config('idle_in_transaction_session_timeout', '15s', false);

-- lengthen_statements: Let each statement of this transaction take so many seconds.
SELECT set_config('statement_timeout', %(seconds)s || 's', true);

-- lift_bounds: Lift the time limit for a migration; this counts for later statements.
SELECT
    set_config('statement_timeout', '0', true),
    set_config('idle_in_transaction_session_timeout', '0', true);

-- lock_migrations: Let one replica at a time migrate.
SELECT pg_advisory_xact_lock(7310972231);

-- create_migrations: The record of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migration (
    name text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- server_version: The major version of the server, such as 18.
SELECT current_setting('server_version_num')::integer / 10000 AS major;

-- has_migrations: Whether the database is one of ours.
SELECT to_regclass('schema_migration') IS NOT NULL AS found;

-- list_migrations: The migrations that have been applied.
SELECT name FROM schema_migration;

-- replicas_at_work: Superlinks and gateways that were seen lately, with their own reports.
SELECT
    kind,
    -- Before 0.3.0 the table had no such column.
    to_jsonb(replica) #>> '{about,version}' AS version,
    to_jsonb(replica) #>> '{about,host}' AS host
FROM replica
WHERE kind IN ('superlink', 'gateway')
    AND seen_at > now() - make_interval(secs => %(seconds)s)
ORDER BY kind, since;

-- newest_migration: The migration that was applied last, NULL before the first.
SELECT max(name) AS name FROM schema_migration;

-- note_migration: Note an applied migration.
INSERT INTO schema_migration (name) VALUES (%(name)s);

-- durability: What the server promises for acknowledged data.
SELECT
    current_setting('server_version') AS version,
    current_setting('fsync') = 'on' AS fsync,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('full_page_writes') = 'on' AS full_page_writes,
    current_setting('synchronous_standby_names') AS synchronous_standby_names,
    count(*) AS standbys,
    CASE
        -- Commits of this session then wait for no standby.
        WHEN current_setting('synchronous_commit') IN ('local', 'off') THEN 0
        -- Roles without pg_read_all_stats see only that there is a standby.
        WHEN bool_or(sync_state IS NULL) THEN NULL
        ELSE count(*) FILTER (WHERE sync_state IN ('sync', 'quorum'))
    END AS synchronous_standbys
FROM pg_stat_replication;
