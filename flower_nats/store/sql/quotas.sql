-- set: Store the limits of a federation or an account, or of each.
INSERT INTO quota (kind, name, runs_at_once, run_seconds)
VALUES (%(kind)s, %(name)s, %(runs_at_once)s, %(run_seconds)s)
ON CONFLICT (kind, name) DO UPDATE
SET runs_at_once = excluded.runs_at_once, run_seconds = excluded.run_seconds;

-- remove: Remove the limits of a federation or an account: the limits of each then apply.
DELETE FROM quota WHERE kind = %(kind)s AND name = %(name)s;

-- get: The limits of a federation or an account, locked.
SELECT kind, name, runs_at_once, run_seconds FROM quota
WHERE kind = %(kind)s AND name = %(name)s
FOR UPDATE;

-- list: All limits.
SELECT kind, name, runs_at_once, run_seconds FROM quota ORDER BY kind, name;

-- use: The number of begun and waiting runs of each federation and account.
SELECT
    kind, name,
    count(*) FILTER (WHERE task.status <> 'pending') AS begun,
    count(*) FILTER (WHERE task.status = 'pending') AS pending
FROM task
JOIN run ON run.primary_task_id = task.task_id
CROSS JOIN LATERAL (
    VALUES ('federation', run.federation), ('account', run.account_name)
) AS subject (kind, name)
WHERE task.status <> 'finished'
GROUP BY kind, name
ORDER BY kind, name;

-- overdue: Runs that have taken longer than allowed, each with the limit.
SELECT DISTINCT ON (task.task_id)
    task.task_id AS primary_task_id, quota.run_seconds, quota.kind,
    CASE quota.kind WHEN 'federation' THEN run.federation ELSE run.account_name END AS name
FROM task
JOIN run ON run.primary_task_id = task.task_id
CROSS JOIN LATERAL (
    (
        SELECT kind, run_seconds FROM quota
        WHERE kind = 'federation' AND name IN ('*', run.federation)
        ORDER BY name = '*' LIMIT 1
    )
    UNION ALL
    (
        SELECT kind, run_seconds FROM quota
        WHERE kind = 'account' AND lower(name) IN ('*', lower(run.account_name))
        ORDER BY name = '*' LIMIT 1
    )
) AS quota
WHERE task.status = 'running'
    -- Not the sum of a time and an interval: one limit that is too large would end the query.
    AND extract(epoch FROM now() - task.running_at) > quota.run_seconds
ORDER BY task.task_id, quota.run_seconds;
