-- Runs for lists: all columns but the overrides of their configurations, which may be large.

CREATE VIEW run_listed AS
SELECT
    run_id,
    series_id,
    primary_task_id,
    fab_id,
    fab_version,
    fab_hash,
    ''::bytea AS override_config,
    federation,
    account_id,
    bytes_sent,
    bytes_recv,
    clientapp_runtime,
    created_at,
    primary_task_type,
    status,
    sub_status,
    details,
    pending_at,
    starting_at,
    running_at,
    finished_at
FROM run_state;
