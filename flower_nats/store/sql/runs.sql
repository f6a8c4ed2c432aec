-- create: Store a run and its primary task, which then waits for a SuperExec.
WITH created AS (
    INSERT INTO run (
        run_id, series_id, primary_task_id, fab_id, fab_version, fab_hash, override_config,
        federation, account_id, account_name, user_prompt, simulation_config
    )
    VALUES (
        %(run_id)s, %(series_id)s, %(task_id)s, %(fab_id)s, %(fab_version)s, %(fab_hash)s,
        %(override_config)s, %(federation)s, %(account_id)s, %(account_name)s,
        %(user_prompt)s, %(simulation_config)s
    )
    RETURNING run_id
)
INSERT INTO task (task_id, run_id, type, status, fab_hash)
SELECT %(task_id)s, run_id, %(primary_task_type)s, 'pending', %(fab_hash)s FROM created;

-- get: A run in the state of its primary task.
SELECT * FROM run_state WHERE run_id = %(run_id)s;

-- list: The runs of the federations that an account is in, or all, newest first.
SELECT * FROM run_listed
WHERE %(account_id)s::text IS NULL
    OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(account_id)s)
ORDER BY created_at DESC, run_id DESC
LIMIT %(limit)s
OFFSET %(skip)s;

-- in_federation: The runs of a federation, newest first.
SELECT * FROM run_listed
WHERE federation = %(federation)s
ORDER BY created_at DESC, run_id DESC
LIMIT %(limit)s;

-- search: The runs that match all parameters that are not null, newest first.
SELECT * FROM run_listed
WHERE (%(status)s::text IS NULL OR status = %(status)s)
    AND (NOT %(unfinished)s OR status <> 'finished')
    AND (%(sub_status)s::text IS NULL OR sub_status = %(sub_status)s)
    AND (%(federation)s::text IS NULL OR federation = %(federation)s)
    AND (
        %(seen_by)s::text IS NULL
        OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(seen_by)s)
    )
    AND (
        %(text)s::text IS NULL
        OR strpos(lower(fab_id), lower(%(text)s)) > 0
        OR strpos(lower(details), lower(%(text)s)) > 0
    )
ORDER BY created_at DESC, run_id DESC
LIMIT %(limit)s
OFFSET %(skip)s;

-- federations: The federations with runs, of an account or of all.
SELECT DISTINCT federation FROM run
WHERE %(account_id)s::text IS NULL
    OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(account_id)s)
ORDER BY federation;

-- of_series: The runs of a series, oldest first.
SELECT * FROM run_listed WHERE series_id = %(series_id)s ORDER BY created_at, run_id;

-- prompt: The prompt of a run's agent, and when the agent began to run.
SELECT
    run.user_prompt,
    extract(epoch FROM coalesce(task.running_at, run.created_at))::double precision AS began_at
FROM run JOIN task ON task.task_id = run.primary_task_id
WHERE task.task_id = %(task_id)s AND run.user_prompt <> '';

-- simulation_config: How a run is simulated.
SELECT simulation_config FROM run WHERE run_id = %(run_id)s;

-- unfinished_in: The runs of a federation, or those of one account in it, that have not finished.
SELECT * FROM run_listed
WHERE federation = %(federation)s AND status <> 'finished'
    AND (%(account_id)s::text IS NULL OR account_id = %(account_id)s);

-- unfinished: The runs that have not finished, the oldest first.
SELECT * FROM run_listed WHERE status <> 'finished' ORDER BY created_at, run_id;

-- statuses: The status of each of these runs that exists.
SELECT run_id, status FROM run_state WHERE run_id = ANY (%(run_ids)s::bigint[]);

-- add_usage: Add to the traffic and the computing time of runs.
UPDATE run
SET
    bytes_sent = bytes_sent + used.sent,
    bytes_recv = bytes_recv + used.received,
    clientapp_runtime = clientapp_runtime + used.runtime
FROM (
    SELECT run_id, sum(sent)::bigint AS sent, sum(received)::bigint AS received,
        sum(runtime) AS runtime
    FROM unnest(
        %(run_ids)s::bigint[], %(sent)s::bigint[], %(received)s::bigint[],
        %(runtimes)s::double precision[]
    ) AS usage (run_id, sent, received, runtime)
    GROUP BY run_id
) AS used
WHERE run.run_id = used.run_id;

-- running: The running runs, with their primary tasks.
SELECT run_id, primary_task_id FROM run_state WHERE status = 'running' ORDER BY run_id;

-- unclean: Runs that finished a while ago and may still have data in the broker.
SELECT run.run_id
FROM run
JOIN task ON task.task_id = run.primary_task_id
WHERE run.cleaned_at IS NULL
    AND task.status = 'finished'
    AND task.finished_at < now() - make_interval(secs => %(settle)s)
ORDER BY task.finished_at
LIMIT %(limit)s;

-- mark_cleaned: Note that a finished run has no data in the broker.
UPDATE run SET cleaned_at = now() WHERE run_id = %(run_id)s;

-- with_old_logs: Runs that ended long ago and still have a log, which is to be removed.
SELECT run.run_id
FROM run
JOIN task ON task.task_id = run.primary_task_id
WHERE run.log_removed_at IS NULL
    -- A run that began later cannot have ended before. The index has this column.
    AND run.created_at < now() - make_interval(days => %(days)s::integer)
    AND task.status = 'finished'
    AND task.finished_at < now() - make_interval(days => %(days)s::integer)
ORDER BY run.created_at
LIMIT %(limit)s;

-- mark_log_removed: Note that the log of a run was removed, and remove the history of its exchanges.
WITH exchanges AS (
    DELETE FROM exchange WHERE run_id = %(run_id)s
)
UPDATE run SET log_removed_at = now() WHERE run_id = %(run_id)s;

-- ended_before: Runs that ended so long ago that they are to be deleted, and have no data in the broker.
SELECT run.run_id
FROM run
JOIN task ON task.task_id = run.primary_task_id
WHERE run.cleaned_at IS NOT NULL
    -- A run that began later cannot have ended before. The index has this column.
    AND run.created_at < now() - make_interval(days => %(days)s::integer)
    AND task.status = 'finished'
    AND task.finished_at < now() - make_interval(days => %(days)s::integer)
ORDER BY run.created_at
LIMIT %(limit)s;

-- counts: The number of runs in each status, and of finished runs in each sub-status.
SELECT
    CASE status WHEN 'finished' THEN sub_status ELSE status END AS status,
    count(*) AS count
FROM run_state GROUP BY 1;

-- lock_to_delete: A run and its series, locked; whether the run is over and has no data in the broker.
SELECT
    run.series_id, run.fab_hash, task.status,
    task.status = 'finished' AND run.cleaned_at IS NOT NULL AS is_over
FROM run
JOIN task ON task.task_id = run.primary_task_id
JOIN series ON series.series_id = run.series_id
WHERE run.run_id = %(run_id)s
FOR UPDATE OF run, series;

-- delete: Delete a run with all data of its tasks.
WITH exchanges AS (
    DELETE FROM exchange WHERE run_id = %(run_id)s
), events AS (
    DELETE FROM task_event WHERE run_id = %(run_id)s
), usage AS (
    DELETE FROM task_usage WHERE run_id = %(run_id)s
), messages AS (
    DELETE FROM task_message
    WHERE dst_task_id IN (SELECT task_id FROM task WHERE run_id = %(run_id)s)
), tasks AS (
    DELETE FROM task WHERE run_id = %(run_id)s
)
DELETE FROM run WHERE run_id = %(run_id)s;
