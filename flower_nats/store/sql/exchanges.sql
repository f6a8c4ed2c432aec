-- add: Add new facts about exchanges; times come as ages in seconds. The order is always the same, because batches of
-- several gateways may have the same exchanges.
INSERT INTO exchange (
    run_id, exchange_id, node_id, session_id, message_type, group_id, put_out_at, taken_at,
    answered_at, outcome, reason, bytes_sent, bytes_recv, metrics
)
SELECT
    note.run_id, exchange_id, node_id, session_id, message_type, group_id,
    now() - make_interval(secs => put_out), now() - make_interval(secs => taken),
    now() - make_interval(secs => answered), outcome, reason, note.bytes_sent, note.bytes_recv, metrics::jsonb
FROM unnest(
    %(run_id)s::bigint[], %(exchange_id)s::bigint[], %(node_id)s::bigint[],
    %(session_id)s::bigint[], %(message_type)s::text[], %(group_id)s::text[],
    %(put_out)s::double precision[], %(taken)s::double precision[],
    %(answered)s::double precision[], %(outcome)s::text[], %(reason)s::text[],
    %(bytes_sent)s::bigint[], %(bytes_recv)s::bigint[], %(metrics)s::text[]
) AS note (
    run_id, exchange_id, node_id, session_id, message_type, group_id, put_out, taken, answered,
    outcome, reason, bytes_sent, bytes_recv, metrics
)
JOIN run ON run.run_id = note.run_id
ORDER BY note.run_id, exchange_id
ON CONFLICT (run_id, exchange_id) DO UPDATE
SET
    node_id = coalesce(exchange.node_id, excluded.node_id),
    session_id = CASE exchange.session_id WHEN 0 THEN excluded.session_id ELSE exchange.session_id END,
    message_type = CASE exchange.message_type
        WHEN '' THEN excluded.message_type ELSE exchange.message_type
    END,
    group_id = CASE exchange.group_id WHEN '' THEN excluded.group_id ELSE exchange.group_id END,
    put_out_at = least(exchange.put_out_at, excluded.put_out_at),
    -- A node that starts anew confirms its instruction again.
    taken_at = greatest(exchange.taken_at, excluded.taken_at),
    answered_at = least(exchange.answered_at, excluded.answered_at),
    outcome = CASE exchange.outcome WHEN '' THEN excluded.outcome ELSE exchange.outcome END,
    reason = CASE exchange.reason WHEN '' THEN excluded.reason ELSE exchange.reason END,
    bytes_sent = exchange.bytes_sent + excluded.bytes_sent,
    bytes_recv = exchange.bytes_recv + excluded.bytes_recv,
    metrics = CASE
        WHEN excluded.metrics IS NULL THEN exchange.metrics
        ELSE coalesce(exchange.metrics, '{}') || excluded.metrics
    END;

-- sends: The sends of a run's ServerApp, one for each call, oldest first.
SELECT
    session_id,
    max(message_type) AS message_type,
    max(group_id) AS group_id,
    min(put_out_at) AS began_at,
    min(answered_at) AS first_answered_at,
    max(answered_at) AS ended_at,
    count(*) AS sent,
    count(answered_at) AS answered,
    count(*) FILTER (WHERE outcome IN ('failed', 'unanswered')) AS failed,
    sum(bytes_sent)::bigint AS bytes_sent,
    sum(bytes_recv)::bigint AS bytes_recv
FROM exchange
-- Exchanges without a known release or reply have only bytes.
WHERE run_id = %(run_id)s AND session_id <> 0
GROUP BY session_id
ORDER BY min(coalesce(put_out_at, answered_at)), session_id;

-- by_node: The exchanges of these sends of a run, one row for each node. Unanswered exchanges last until now, or until
-- the end of the run.
SELECT
    node_id,
    array_agg(session_id ORDER BY put_out_at) AS sessions,
    array_agg(outcome ORDER BY put_out_at) AS outcomes,
    array_agg(
        coalesce((1000 * extract(epoch FROM taken_at - put_out_at))::integer, -1)
        ORDER BY put_out_at
    ) AS waits,
    array_agg(
        coalesce(
            (1000 * extract(
                epoch FROM coalesce(answered_at, finished_at, now()) - put_out_at
            ))::integer,
            -1
        )
        ORDER BY put_out_at
    ) AS works
FROM exchange JOIN run_state USING (run_id)
WHERE run_id = %(run_id)s AND session_id = ANY (%(sessions)s::bigint[]) AND node_id IS NOT NULL
GROUP BY node_id
ORDER BY node_id;

-- failures: The errors of a run's exchanges, the newest first.
SELECT
    reason,
    outcome,
    count(*) AS count,
    min(answered_at) AS first_at,
    max(answered_at) AS last_at,
    array_agg(DISTINCT node_id) FILTER (WHERE node_id IS NOT NULL) AS node_ids
FROM exchange
WHERE run_id = %(run_id)s AND outcome IN ('failed', 'unanswered')
GROUP BY reason, outcome
ORDER BY max(answered_at) DESC, reason
LIMIT %(limit)s;

-- metric_names: The names of the numbers in replies to these sends of a run, by type of message.
SELECT message_type, name, count(*) AS count
FROM exchange, jsonb_object_keys(metrics) AS name
WHERE run_id = %(run_id)s AND session_id = ANY (%(sessions)s::bigint[]) AND metrics IS NOT NULL
GROUP BY message_type, name
ORDER BY message_type, name
LIMIT %(limit)s;

-- metric_by_round: One number of replies, summed over each round. `rounds` has the round of each send. It is not a
-- table to join: without statistics of a new run, a join takes minutes. Sums are numeric, because they may be too large
-- for a double.
SELECT
    at,
    count(*) AS count,
    count(*) FILTER (WHERE examples IS NULL) AS without_examples,
    avg(value) AS plain_mean,
    CASE WHEN sum(examples) > 0 THEN sum(value * examples) / sum(examples) END AS weighted_mean,
    min(value) AS least,
    percentile_disc(0.1) WITHIN GROUP (ORDER BY value) AS low,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS middle,
    percentile_disc(0.9) WITHIN GROUP (ORDER BY value) AS high,
    max(value) AS most
FROM (
    SELECT
        (%(rounds)s::integer[])[array_position(%(sessions)s::bigint[], session_id)] AS at,
        (metrics ->> %(name)s)::numeric AS value,
        (metrics ->> %(examples)s)::numeric AS examples
    FROM exchange
    WHERE run_id = %(run_id)s AND session_id = ANY (%(sessions)s::bigint[])
        AND message_type = %(message_type)s AND node_id IS NOT NULL AND metrics ->> %(name)s IS NOT NULL
) AS reading
GROUP BY at
ORDER BY at;

-- metric_farthest: The nodes with the last value farthest from the mean of its round, and the number of all nodes.
-- Nodes without a finite value come first. `means` has the mean for each send.
SELECT node_id, count(*) OVER () AS nodes_in_all
FROM (
    SELECT DISTINCT ON (node_id) node_id, distance
    FROM (
        SELECT
            node_id,
            (%(rounds)s::integer[])[array_position(%(sessions)s::bigint[], session_id)] AS at,
            abs(
                (metrics ->> %(name)s)::numeric
                - (%(means)s::numeric[])[array_position(%(sessions)s::bigint[], session_id)]
            ) AS distance
        FROM exchange
        WHERE run_id = %(run_id)s AND session_id = ANY (%(sessions)s::bigint[])
            AND message_type = %(message_type)s AND node_id IS NOT NULL AND metrics ? %(name)s
    ) AS reading
    ORDER BY node_id, distance IS NULL, at DESC
) AS last
ORDER BY distance DESC NULLS FIRST, node_id
LIMIT %(limit)s;

-- metric_of_nodes: One number of the replies of some nodes to these sends.
SELECT session_id, node_id, (metrics ->> %(name)s)::double precision AS value
FROM exchange
WHERE run_id = %(run_id)s AND node_id = ANY (%(node_ids)s::bigint[])
    AND session_id = ANY (%(sessions)s::bigint[])
    AND message_type = %(message_type)s AND metrics ? %(name)s
ORDER BY put_out_at;

-- metrics_after: All numbers of a limited number of replies of a run, after one of them.
SELECT exchange_id, session_id, message_type, node_id, answered_at, metrics
FROM exchange
WHERE run_id = %(run_id)s AND metrics IS NOT NULL
    AND (%(after)s::bigint IS NULL OR exchange_id > %(after)s)
ORDER BY exchange_id
LIMIT %(limit)s;

-- runs_of_node: The results of a node in the runs of the last days that an account sees, or in all, the newest run
-- first.
SELECT
    run_id,
    fab_id,
    federation,
    created_at,
    count(*) AS exchanges,
    count(*) FILTER (WHERE outcome IN ('failed', 'unanswered')) AS failed,
    percentile_cont(0.5) WITHIN GROUP (
        ORDER BY extract(epoch FROM answered_at - put_out_at)::double precision
    ) FILTER (WHERE outcome = 'answered') AS median_seconds,
    sum(exchange.bytes_sent)::bigint AS bytes_sent,
    sum(exchange.bytes_recv)::bigint AS bytes_recv
FROM exchange JOIN run USING (run_id)
WHERE node_id = %(node_id)s
    AND created_at > now() - make_interval(days => %(days)s::integer)
    AND (
        %(account_id)s::text IS NULL
        OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(account_id)s)
    )
GROUP BY run_id, fab_id, federation, created_at
ORDER BY created_at DESC, run_id DESC
LIMIT %(limit)s;

-- failures_of_node: The errors of a node in runs that an account sees, or in all, the newest first.
SELECT reason, outcome, count(*) AS count, min(answered_at) AS first_at, max(answered_at) AS last_at
FROM exchange JOIN run USING (run_id)
WHERE node_id = %(node_id)s AND outcome IN ('failed', 'unanswered')
    AND created_at > now() - make_interval(days => %(days)s::integer)
    AND (
        %(account_id)s::text IS NULL
        OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(account_id)s)
    )
GROUP BY reason, outcome
ORDER BY max(answered_at) DESC, reason
LIMIT %(limit)s;

-- errors: The errors of the exchanges of all runs, the newest first.
SELECT
    reason,
    outcome,
    count(*) AS count,
    min(answered_at) AS first_at,
    max(answered_at) AS last_at,
    array_agg(DISTINCT node_id) FILTER (WHERE node_id IS NOT NULL) AS node_ids,
    array_agg(DISTINCT run_id) AS run_ids
FROM exchange JOIN run USING (run_id)
WHERE outcome IN ('failed', 'unanswered')
    AND answered_at > now() - make_interval(days => %(days)s::integer)
    AND (%(federation)s::text IS NULL OR federation = %(federation)s)
    AND (
        %(seen_by)s::text IS NULL
        OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(seen_by)s)
    )
GROUP BY reason, outcome
ORDER BY max(answered_at) DESC
LIMIT %(limit)s;

-- errors_of_runs: The reasons of failed runs, the newest first.
SELECT
    details AS reason,
    'run' AS outcome,
    count(*) AS count,
    min(finished_at) AS first_at,
    max(finished_at) AS last_at,
    ARRAY[]::bigint[] AS node_ids,
    array_agg(run.run_id) AS run_ids
FROM task JOIN run ON task.task_id = run.primary_task_id
WHERE sub_status = 'failed'
    AND finished_at > now() - make_interval(days => %(days)s::integer)
    AND (%(federation)s::text IS NULL OR federation = %(federation)s)
    AND (
        %(seen_by)s::text IS NULL
        OR federation IN (SELECT federation FROM federation_member WHERE account_id = %(seen_by)s)
    )
GROUP BY details
ORDER BY max(finished_at) DESC
LIMIT %(limit)s;

-- of_nodes: The results of nodes in the runs of the last days.
SELECT
    node_id,
    count(DISTINCT run_id) AS runs,
    count(*) AS exchanges,
    count(*) FILTER (WHERE outcome IN ('failed', 'unanswered')) AS failed,
    percentile_cont(0.5) WITHIN GROUP (
        ORDER BY extract(epoch FROM answered_at - put_out_at)::double precision
    ) FILTER (WHERE outcome = 'answered') AS median_seconds,
    sum(bytes_sent)::bigint AS bytes_sent,
    sum(bytes_recv)::bigint AS bytes_recv
FROM exchange
WHERE run_id IN (
        SELECT run_id FROM run WHERE created_at > now() - make_interval(days => %(days)s::integer)
    )
    AND node_id = ANY (%(node_ids)s::bigint[])
GROUP BY node_id;
