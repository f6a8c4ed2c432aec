-- pending: Tasks of these types that wait for a SuperExec, oldest first.
SELECT * FROM task
WHERE status = 'pending' AND type = ANY (%(types)s::text[])
    AND task_id NOT IN (SELECT task_id FROM run_held_back)
ORDER BY pending_at, task_id;

-- claim: Claim a pending task; the same request, known by its token, may repeat this.
UPDATE task
SET
    status = 'starting',
    starting_at = now(),
    token_hash = %(token_hash)s,
    active_until = now() + make_interval(secs => %(seconds)s),
    heard_by = %(gateway)s,
    taken_by = %(host)s,
    taken_from = %(address)s
WHERE task_id = %(task_id)s
    AND (
        (
            status = 'pending'
            AND (type <> 'flwr-simulation' OR %(has_room)s)
            AND task_id NOT IN (SELECT task_id FROM run_held_back)
        )
        OR (status = 'starting' AND token_hash = %(token_hash)s)
    )
RETURNING *;

-- take_turn: Wait until no other try of this request runs; the next statement sees its result.
SELECT pg_advisory_xact_lock(hashtextextended(%(request_id)s, 0));

-- acquire: Claim the oldest pending task that fits; the same request may repeat this.
WITH acquired AS (
    SELECT task_id FROM task WHERE status = 'starting' AND token_hash = %(token_hash)s
), next AS (
    SELECT task_id FROM task
    WHERE status = 'pending'
        AND (type = ANY (%(types)s::text[]) OR fab_hash = ANY (%(fab_hashes)s::text[]))
        AND (type <> 'flwr-simulation' OR %(has_room)s)
        AND task_id NOT IN (SELECT task_id FROM run_held_back)
        AND NOT EXISTS (SELECT FROM acquired)
    ORDER BY pending_at, task_id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE task
SET
    status = 'starting',
    starting_at = now(),
    token_hash = %(token_hash)s,
    active_until = now() + make_interval(secs => %(seconds)s),
    heard_by = %(gateway)s,
    taken_by = %(host)s,
    taken_from = %(address)s
WHERE task_id IN (SELECT task_id FROM acquired UNION ALL SELECT task_id FROM next)
RETURNING *;

-- has_room: Whether a host may take one more simulation; an unknown host takes any number.
SELECT count(task.task_id) < replica.simulations AS has_room
FROM replica
LEFT JOIN task ON task.taken_by = replica.id
    AND task.type = 'flwr-simulation'
    AND task.status IN ('starting', 'running')
WHERE replica.kind = 'superexec' AND replica.id = %(host)s
GROUP BY replica.simulations;

-- by_token: The task of a token that is valid, or that ended with its task a short time ago.
SELECT * FROM task
WHERE token_hash = %(token_hash)s
    AND (
        status IN ('starting', 'running')
        OR finished_at > now() - make_interval(secs => %(farewell)s)
    );

-- sign: When the process of an unfinished task was last heard, and the address of its SuperExec.
SELECT
    active_until - make_interval(
        secs => CASE status WHEN 'starting' THEN %(claim)s ELSE %(silence)s END
    ) AS heard_at,
    taken_from
FROM task WHERE task_id = %(task_id)s;

-- activate: Start a claimed task; a repetition with the same token changes nothing more.
UPDATE task
SET
    status = 'running',
    running_at = coalesce(running_at, now()),
    active_until = now() + make_interval(secs => %(seconds)s),
    heard_by = %(gateway)s
WHERE task_id = %(task_id)s
    AND token_hash = %(token_hash)s
    AND status IN ('starting', 'running')
RETURNING *;

-- under_way: The tasks that SuperExecs have taken, each with its SuperExec, oldest first.
SELECT
    task_id, run_id, type, status, taken_by, taken_from,
    coalesce(running_at, starting_at) AS since
FROM task WHERE status IN ('starting', 'running')
ORDER BY since, task_id;

-- heartbeat: Note a heartbeat of a task's process.
UPDATE task
SET active_until = now() + make_interval(secs => %(seconds)s), heard_by = %(gateway)s
WHERE task_id = %(task_id)s
    AND token_hash = %(token_hash)s
    AND status IN ('starting', 'running')
RETURNING task_id;

-- finish: Finish a task and, if it is the primary task, all other tasks of its run. The token of a task that finishes
-- itself is kept, because its process may make further calls.
WITH done AS (
    UPDATE task
    SET
        status = 'finished',
        sub_status = %(sub_status)s,
        details = %(details)s,
        finished_at = now(),
        token_hash = %(token_hash)s,
        active_until = NULL
    WHERE task_id = %(task_id)s
        AND (%(token_hash)s::bytea IS NULL OR token_hash = %(token_hash)s)
        AND status <> 'finished'
        AND (status = 'running' OR %(sub_status)s <> 'completed')
    RETURNING task_id, run_id, sub_status, details
), ended AS (
    SELECT run.run_id, run.primary_task_id
    FROM run JOIN done ON run.primary_task_id = done.task_id
), others AS (
    UPDATE task
    SET
        status = 'finished',
        sub_status = %(others_sub_status)s,
        details = %(others_details)s,
        finished_at = now(),
        token_hash = NULL,
        active_until = NULL
    FROM ended
    WHERE task.run_id = ended.run_id
        AND task.task_id <> ended.primary_task_id
        AND task.status <> 'finished'
)
SELECT task_id, run_id, EXISTS (SELECT FROM ended) AS run_finished, sub_status AS how, details
FROM done;

-- any_unfinished: A row if there is a task that could fall silent.
SELECT 1 AS found FROM task WHERE status <> 'finished' LIMIT 1;

-- release: Make claimed tasks pending again if their process did not start in time.
UPDATE task
SET status = 'pending', starting_at = NULL, token_hash = NULL, active_until = NULL, taken_by = NULL
WHERE status = 'starting' AND active_until < now()
    AND silence_counts(heard_by, %(deaf_after)s, %(absence)s)
RETURNING task_id, run_id;

-- expire: Fail running tasks that were silent; with a primary task, all tasks of its run.
WITH silent AS (
    UPDATE task
    SET
        status = 'finished',
        sub_status = 'failed',
        details = %(details)s,
        finished_at = active_until,
        token_hash = NULL,
        active_until = NULL
    WHERE status = 'running' AND active_until < now()
        AND silence_counts(heard_by, %(deaf_after)s, %(absence)s)
    RETURNING task_id, run_id, finished_at, sub_status, details
), ended AS (
    SELECT run.run_id, silent.finished_at
    FROM run JOIN silent ON run.primary_task_id = silent.task_id
), others AS (
    UPDATE task
    SET
        status = 'finished',
        sub_status = 'failed',
        details = %(others_details)s,
        finished_at = ended.finished_at,
        token_hash = NULL,
        active_until = NULL
    FROM ended
    WHERE task.run_id = ended.run_id
        AND task.status <> 'finished'
        AND task.task_id NOT IN (SELECT task_id FROM silent)
)
SELECT
    silent.task_id,
    silent.run_id,
    ended.run_id IS NOT NULL AS run_finished,
    silent.sub_status AS how,
    silent.details
FROM silent LEFT JOIN ended USING (run_id);

-- finish_orphans: Finish tasks that were created while their run was finishing.
UPDATE task
SET
    status = 'finished',
    sub_status = 'failed',
    details = %(details)s,
    finished_at = now(),
    token_hash = NULL,
    active_until = NULL
FROM run_state
WHERE task.run_id = run_state.run_id
    AND task.status <> 'finished'
    AND run_state.status = 'finished'
RETURNING task.task_id, task.run_id;

-- create: Store a task that an unfinished task of the same run has asked for.
INSERT INTO task (task_id, run_id, type, status, fab_hash, model_ref, connector_ref)
SELECT
    %(task_id)s, run_id, %(type)s, 'pending', %(fab_hash)s, %(model_ref)s, %(connector_ref)s
FROM task
WHERE task_id = %(requesting_task_id)s AND status <> 'finished'
RETURNING task_id;

-- add_usage: Store the usage that a task reports.
INSERT INTO task_usage (task_id, run_id, body) VALUES (%(task_id)s, %(run_id)s, %(body)s);
